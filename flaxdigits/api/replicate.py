"""Replicates the published systems and compares the results with their claims."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from flaxdigits.api.arguments import PathLike, path_text
from flaxdigits.api.console import print_table
from flaxdigits.api.experiment import absolute_paths
from flaxdigits.api.plan import plan_table
from flaxdigits.api.seeds import outcome_line
from flaxdigits.api.session import Session, new_run_folder, output_folder
from flaxdigits.api.trackers import TrackerFactory, trackers_by_run
from flaxdigits.command import command_line
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.patterns import expand_user
from flaxdigits.plurals import listed
from flaxdigits.reports.replication import ReplicationReport, put_between_markers
from flaxdigits.reports.replication_page import report_files
from flaxdigits.studies import collection
from flaxdigits.studies.collection import RECORDS_FOLDER, Collection, ProtocolRuns, missing_seeds
from flaxdigits.studies.replication import System, folder_name, load_systems, shortened_recipes
from flaxdigits.studies.seeds import checked_seeds, seed_configs, train_seeds, unfinished
from flaxdigits.training import processes, provenance
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.results import Outcome
from flaxdigits.training.run_folder import RunFolder, readable_os_errors
from flaxdigits.training.runs import check_folders

RUNS = Path("runs")
MAX_SKIPPED_LINES = 8  # number of skipped runs to print


@dataclasses.dataclass(frozen=True)
class ReplicationOutcome:
    """The outcome of a replication.

    Attributes:
      collection: the runs that count; None with `dry_run`.
      signal: the signal that paused the replication, or None.
    """

    collection: Collection | None
    signal: int | None = None


@pinned_settings()
def replicate(
    experiment: PathLike | None = None, *overrides: str, seeds: Sequence[int] = range(5),
    workdir: PathLike | None = None, collect: PathLike | Sequence[PathLike] = (),
    collect_only: bool = False, update: PathLike | None = None, dry_run: bool = False,
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    trackers: TrackerFactory | None = None, tensorboard: bool = True,
    command: str | None = None, console: Console | None = None,
) -> ReplicationOutcome:
    """Collects finished runs of the replications, trains the missing ones, and writes the report.

    Args:
      experiment: the name or path of an experiment with `get_replication()`; None: all of them.
      *overrides: overrides that only shorten training, such as `train.epochs=1`.
      seeds: the seeds of each protocol.
      workdir: the folder of the runs and the report; None: `runs/replicate`.
      collect: one or several patterns of finished runs to use instead of training them: run
        folders, records, or folders that contain them. By default all runs in `runs/`.
      collect_only: train nothing, and report only the finished runs.
      update: a Markdown file in which the report between the markers `<!-- replication: begin -->`
        and `<!-- replication: end -->` is replaced, and the short table between
        `<!-- replication summary: begin -->` and `<!-- replication summary: end -->`.
      dry_run: only print the missing runs and an estimate of how long they take.
      raw_data_dir: See `train`. Synthetic data are never used.
      data_dir: See `train`.
      trackers: a function that returns the trackers of a run folder. If several seeds are trained
        at the same time, as on a GPU, only the first of them is tracked and printed.
      tensorboard: See `train`.
      command: the command to print in the report; None: that of this process.
      console: See `train`.

    Raises:
      FlaxdigitsError: as `train_seeds` does, or if a record or `update` cannot be read.
    """
    processes.check_single_process()
    systems = load_systems(
        None if experiment is None else path_text(experiment, "experiment"), absolute_paths)
    configs = {system.name: shortened_recipes(system, overrides) for system in systems}
    seeds = checked_seeds(seeds)
    folder = (output_folder if collect_only else new_run_folder)(workdir, "replicate")
    session = Session.start(
        [config for protocols in configs.values() for config in protocols.values()], console,
        "real", raw_data_dir, data_dir)
    console, progress = session.console, session.progress
    with progress.stage("collecting finished runs"):
        found = collection.collect(systems, _patterns(collect, collect_only, folder))
    updated = None if update is None else expand_user(path_text(update, "update"))
    if updated is not None:
        _updated_text(updated, "", "")  # raises before anything is trained if a marker is missing
    trackers_of = trackers_by_run(
        console, tensorboard, False, trackers, lambda path: f"seed {path.name}")
    plans = [
        PlannedRuns(runs, configs[name][protocol],
                    missing_seeds(runs, configs[name][protocol], seeds))
        for name, protocols in found.runs.items() for protocol, runs in protocols.items()]
    for plan in plans:
        if plan.missing and not collect_only:
            check_folders(seed_configs(plan.config, plan.missing, folder / plan.folder),
                          session.load(plan.config))
    if dry_run:
        print_table(console, plan_table(
            {plan.name: (plan.config, plan.missing) for plan in plans}, seeds,
            session.load))
        return ReplicationOutcome(None)

    with Interrupts() as interrupts:
        is_complete = collect_only or all(
            not interrupts.received and _train(plan, folder, session, trackers_of)
            for plan in plans if plan.missing)
    with progress.stage("collecting finished runs"):
        found = collection.collect(systems, _patterns(collect, collect_only, folder))
    with progress.stage("writing the report"):
        _report(console, command or command_line(), systems, found, folder, updated)
    if is_complete:
        return ReplicationOutcome(found)
    session.print_pause(interrupts.received)
    return ReplicationOutcome(found, interrupts.received)


@dataclasses.dataclass(frozen=True)
class PlannedRuns:
    """The runs of a protocol that are finished and those that are missing.

    Attributes:
      runs: the finished runs.
      config: the config of the missing runs.
      missing: the seeds of the missing runs.
    """

    runs: ProtocolRuns
    config: ExperimentConfig
    missing: Sequence[int]

    @property
    def name(self) -> str:
        """The name of the runs, such as `dense_cnn, original`."""
        return f"{self.runs.system.name}, {self.runs.protocol}"

    @property
    def folder(self) -> Path:
        """The folder of the seeds, relative to the folder of the replication."""
        return Path(self.runs.system.name) / folder_name(
            self.runs.protocol, self.config, self.runs.recipe)


def _train(
    plan: PlannedRuns, workdir: Path, session: Session, trackers_of: TrackerFactory
) -> bool:
    """Trains the missing runs; returns False if a run was paused."""
    folder = workdir / plan.folder
    # A seed whose run has ended here can still be "missing": the report leaves out short runs if
    # other runs are longer. Such a run is not trained again.
    to_run = unfinished(folder, plan.missing)
    if to_run:
        session.console.print(f"{plan.name}: to run: {listed('seed', to_run)}, on "
                              f"{provenance.device_name()}, in {folder}")
    dataset = session.load_for_training(plan.config, folder / "seeds" / str(plan.missing[0]))

    def on_end(seed: int, outcome: Outcome) -> None:
        session.console.print(f"{plan.name}, seed {seed}: {outcome_line(outcome)}")

    return train_seeds(
        plan.config, plan.missing, dataset, folder, trackers_of, on_end,
        progress=session.progress) is not None


def _patterns(
    collect: PathLike | Sequence[PathLike], collect_only: bool, workdir: Path
) -> list[str]:
    """Returns the patterns of finished runs: `collect` (by default `runs`) and `workdir`."""
    several = [collect] if isinstance(collect, str | os.PathLike) or not isinstance(
        collect, Iterable) else collect
    patterns = [path_text(pattern, "collect") for pattern in several]
    if patterns and collect_only:
        return patterns
    folders = [workdir] if patterns else [RUNS, workdir]
    return [*patterns, *(str(folder) for folder in folders if folder.is_dir())]


def _updated_text(path: Path, block: str, summary: str) -> str:
    """Returns the text of the file `update` with the report between its markers."""
    with readable_os_errors(path, "read"):
        text = path.read_text(encoding="utf-8")
    try:
        return put_between_markers(text, block, summary)
    except FlaxdigitsError as error:
        raise FlaxdigitsError(f"{path}: {error}") from error


def _report(
    console: Console, command: str, systems: Sequence[System], runs: Collection,
    workdir: Path, updated: Path | None,
) -> None:
    """Writes the files of the report, and prints its table and remarks."""
    report = ReplicationReport(systems, runs, command)
    folder = RunFolder(workdir)
    for name, content in report_files(report).items():
        folder.write(name, content)
    print_table(console, report.terminal())
    for row in report.rows():
        console.print(f"{row.system.name}: {row.explanation()}")
    console.print(report.hardware())
    skipped = [f"{path}: {reason}" for path, reason in sorted(runs.skipped.items())]
    for line in skipped[:MAX_SKIPPED_LINES]:
        console.print(f"does not count: {line}")
    if len(skipped) > MAX_SKIPPED_LINES:
        console.print(f"{len(skipped) - MAX_SKIPPED_LINES} more that do not count are in "
                      f"{workdir / 'replication.json'}")
    if updated is not None:
        text = _updated_text(updated, report.block(), report.summary())
        RunFolder(updated.parent).write(updated.name, text.encode())
        console.print(f"updated: {updated}")
    console.print(f"report: {workdir / 'replication.html'}, and .md, .json; records of the runs "
                  f"that count: {workdir / RECORDS_FOLDER}")
