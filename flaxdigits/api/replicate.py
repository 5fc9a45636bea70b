"""Replications: the shipped systems by their own recipes, beside what they claimed."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.context import (
    check_before_data,
    check_devices,
    loader,
    make_console,
    print_table,
    report_pause,
)
from flaxdigits.api.experiment import absolute_paths
from flaxdigits.api.plan import plan_table
from flaxdigits.api.seeds import outcome_line
from flaxdigits.api.train import default_trackers
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.patterns import expand_user
from flaxdigits.studies import collection as finished
from flaxdigits.studies.ablation import Load
from flaxdigits.studies.collection import KEPT, Collection, Runs, missing
from flaxdigits.studies.replication import System, folder_name, load_systems, shortened
from flaxdigits.studies.seeds import checked_seeds, seed_configs, train_seeds, unfinished
from flaxdigits.training import parallel, processes, provenance
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.run_folder import RunFolder, readable_os_errors
from flaxdigits.training.runs import check_folders
from flaxdigits.training.trackers import Tracker
from flaxdigits.training.trainer import Outcome

RUNS = Path("runs")
MOST_LEFT_OUT = 8  # lines


@dataclasses.dataclass(frozen=True)
class ReplicationOutcome:
    """How a replication ended.

    Attributes:
      collection: the runs that count; None if they were only planned.
      signal: the signal that paused it, if one did.
    """

    collection: Collection | None
    signal: int | None = None


@pinned_settings()
def replicate(
    experiment: PathLike | None = None, *overrides: str, seeds: Sequence[int] = range(5),
    workdir: PathLike | None = None, collect: PathLike | Sequence[PathLike] = (),
    collect_only: bool = False, update: PathLike | None = None, dry_run: bool = False,
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    trackers: Callable[[Path], Sequence[Tracker]] | None = None, tensorboard: bool = True,
    command: str = "flaxdigits.replicate", console: Console | None = None,
) -> ReplicationOutcome:
    """Runs what is missing of the replications, collects the rest, and reports.

    Args:
      experiment: one with a `get_replication()`, by its name or path; None: all.
      *overrides: of how much is trained alone, such as `train.epochs=1`.
      seeds: of each protocol.
      workdir: of the runs and the report; None is `runs/replicate`.
      collect: one or several patterns of finished runs that count in place of runs; see
        `--collect`.
      collect_only: run nothing, report what there is.
      update: a Markdown file in which the table is put between its markers.
      dry_run: only print what would be run, and how long it would take.
      raw_data_dir: as for `train`; the data are real ones.
      data_dir: as for `train`.
      trackers: returns the trackers of a run folder; of seeds that are trained at once, as on a
        GPU, only the first is reported, and so it is on the console and in event files.
      tensorboard: as for `train`.
      command: what the report says it was made by.
      console: as for `train`.

    Raises:
      FlaxdigitsError: as `train_seeds` does, or if a record or `update` cannot be read.
    """
    processes.check_single_process()
    named = None if experiment is None else os.fspath(experiment)
    systems = load_systems(named, absolute_paths)
    configs = {system.name: shortened(system, overrides) for system in systems}
    seeds = checked_seeds(seeds)
    folder = RUNS / "replicate" if workdir is None else expand_user(workdir)
    if not collect_only:
        RunFolder(folder).check_name()
    found = finished.collect(systems, _patterns(collect, collect_only, folder))
    updated = None if update is None else expand_user(update)
    if updated is not None:
        _updated(updated, "")  # whether it can be, before anything is run
    if any(config.train.deterministic for one in configs.values() for config in one.values()):
        parallel.ask_for_deterministic_kernels()
    console = console or make_console()
    check_devices()
    protocols = [
        Protocol(runs, configs[name][protocol], missing(runs, configs[name][protocol], seeds))
        for name, by_name in found.runs.items() for protocol, runs in by_name.items()]
    load = loader("real", raw_data_dir, data_dir)
    for one in protocols:
        if one.missing and not collect_only:
            check_folders(seed_configs(one.config, one.missing, folder / one.folder),
                          load(one.config))
    if dry_run:
        print_table(console, plan_table(
            {one.name: (one.config, one.missing) for one in protocols}, seeds, load))
        return ReplicationOutcome(None)

    def trackers_of(path: Path) -> list[Tracker]:
        console.print(f"seed {path.name}")
        own = trackers(path) if trackers is not None else ()
        return default_trackers(console, tensorboard, profile=False, trackers=own)

    with Interrupts() as interrupts:
        is_whole = collect_only or all(
            not interrupts.received and _is_run(one, folder, load, trackers_of, console)
            for one in protocols if one.missing)
    found = finished.collect(systems, _patterns(collect, collect_only, folder))
    _report(console, command, systems, found, folder, updated)
    if is_whole:
        return ReplicationOutcome(found)
    report_pause(console, interrupts.received)
    return ReplicationOutcome(found, interrupts.received)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is to be done: the runs so far, the config, and the seeds that they lack."""

    runs: Runs
    config: ExperimentConfig
    missing: Sequence[int]

    @property
    def name(self) -> str:
        """Like `dense_cnn, original`."""
        return f"{self.runs.system.name}, {self.runs.protocol}"

    @property
    def folder(self) -> Path:
        """Of its seeds, within that of all."""
        return Path(self.runs.system.name) / folder_name(
            self.runs.protocol, self.config, self.runs.recipe)


def _is_run(
    one: Protocol, workdir: Path, load: Load, trackers_of: Callable[[Path], Sequence[Tracker]],
    console: Console,
) -> bool:
    """Runs it; whether all its seeds ended."""
    folder = workdir / one.folder
    to_run = unfinished(folder, one.missing)  # those that went less far than others do not count
    if to_run:
        console.print(f"{one.name}: to run: seed {', '.join(map(str, to_run))}, on "
                      f"{provenance.device_name()}, in {folder}")
    check_before_data(one.config, folder / "seeds" / str(one.missing[0]))

    def on_end(seed: int, outcome: Outcome) -> None:
        console.print(f"{one.name}, seed {seed}: {outcome_line(outcome)}")

    return train_seeds(
        one.config, one.missing, load(one.config), folder, trackers_of, on_end) is not None


def _patterns(
    collect: PathLike | Sequence[PathLike], collect_only: bool, workdir: Path
) -> list[str]:
    """Where to look for finished runs: what was named, else in `runs`; and those of before."""
    several = [collect] if isinstance(collect, str | os.PathLike) else collect
    named = [os.fspath(pattern) for pattern in several]
    if named and collect_only:
        return named
    places = [workdir] if named else [RUNS, workdir]
    return [*named, *(str(place) for place in places if place.is_dir())]


def _updated(path: Path, block: str) -> str:
    """The text of the file that --update names, with this between its markers."""
    from flaxdigits.reports.replication import put_between_markers

    with readable_os_errors(path, "read"):
        text = path.read_text(encoding="utf-8")
    try:
        return put_between_markers(text, block)
    except FlaxdigitsError as error:
        raise FlaxdigitsError(f"{path}: {error}") from error


def _report(
    console: Console, command: str, systems: Sequence[System], collection: Collection,
    workdir: Path, updated: Path | None,
) -> None:
    from flaxdigits.reports.replication import ReplicationReport

    report = ReplicationReport(systems, collection, command)
    folder = RunFolder(workdir)
    for name, content in report.files().items():
        folder.write(name, content)
    print_table(console, report.terminal())
    for row in report.rows():
        console.print(f"{row.system.name}: {row.sentences()}")
    console.print(report.hardware())
    left_out = [f"{path}: {reason}" for path, reason in sorted(collection.left_out.items())]
    for line in left_out[:MOST_LEFT_OUT]:
        console.print(f"does not count: {line}")
    if len(left_out) > MOST_LEFT_OUT:
        console.print(f"{len(left_out) - MOST_LEFT_OUT} more that do not count are in "
                      f"{workdir / 'replication.json'}")
    if updated is not None:
        RunFolder(updated.parent).write(updated.name, _updated(updated, report.block()).encode())
        console.print(f"updated: {updated}")
    console.print(f"report: {workdir / 'replication.html'}, and .md, .json; the runs that count as "
                  f"small files: {workdir / KEPT}")
