"""--mode=replicate: runs what is missing of the replications, collects the rest, and reports."""

import dataclasses
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flaxdigits.api.context import check_before_data, warn_of_unused_gpu
from flaxdigits.api.experiment import absolute_paths
from flaxdigits.api.seeds import outcome_line
from flaxdigits.api.train import told_of_a_run
from flaxdigits.cli.ablation import loader, plan_table
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_trackers
from flaxdigits.studies.ablation import Load
from flaxdigits.studies.collection import KEPT, Collection, Runs, collect, missing
from flaxdigits.studies.replication import System, load_systems, shortened
from flaxdigits.studies.seeds import parse_seeds, train_seeds
from flaxdigits.training import parallel, provenance
from flaxdigits.training.loop import Outcome
from flaxdigits.training.run_folder import RunFolder, clear_errors
from flaxdigits.training.trackers import Tracker

RUNS, SEEDS = Path("runs"), "0..4"
MOST_LEFT_OUT = 8  # lines


def run(options: Options, config: None) -> int:
    """Prints the table and where the page lies; returns the exit status."""
    if options.data == "drawn":
        raise FlaxdigitsError(
            "--data=drawn: the claims are about the real data; drawn ones replicate nothing")
    systems = load_systems(options.experiment, absolute_paths)
    configs = {system.name: shortened(system, options.overrides) for system in systems}
    seeds = parse_seeds(options.seeds or SEEDS)
    workdir = options.workdir() if options.workdirs else RUNS / "replicate"
    collection = collect(systems, _patterns(options, workdir))
    update = _updatable(options.update)
    console = Console(highlight=False, soft_wrap=True)
    warn_of_unused_gpu()
    protocols = [
        Protocol(runs, configs[name][protocol], missing(runs, configs[name][protocol], seeds))
        for name, by_name in collection.runs.items() for protocol, runs in by_name.items()]
    load = loader(dataclasses.replace(options, data="real"))
    if options.dry_run:
        console.print(plan_table(
            {one.name: (one.config, one.missing) for one in protocols}, seeds, load))
        return 0
    signals: list[int] = []
    is_whole = options.collect_only or all(
        _is_run(one, options, workdir, load, console, signals)
        for one in protocols if one.missing)
    _report(console, options, systems, collect(systems, _patterns(options, workdir)), workdir,
            update)
    if is_whole:
        return 0
    told = signal.Signals(signals[0]).name if signals else "train.stop_after"
    console.print(f"paused by {told}; the same command goes on from there")
    return 128 + signals[0] if signals else 0


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


def _is_run(
    one: Protocol, options: Options, workdir: Path, load: Load, console: Console, signals: list[int]
) -> bool:
    """Runs it; whether it ended, or else a pause did, with its signal if there was one."""
    folder = workdir / one.runs.system.name / one.runs.protocol
    console.print(f"{one.name}: to run: seed {', '.join(map(str, one.missing))}, on "
                  f"{provenance.device_name()}, in {folder}")
    check_before_data(one.config, folder / "seeds" / str(one.missing[0]))
    if one.config.train.deterministic:
        parallel.ask_for_deterministic_kernels()

    def trackers(path: Path) -> list[Tracker]:
        console.print(f"seed {path.name}")
        own = load_trackers(options.experiment) if options.experiment else ()
        return told_of_a_run(console, options.tensorboard, False, own)

    def tell(seed: int, outcome: Outcome) -> None:
        console.print(f"{one.name}, seed {seed}: {outcome_line(outcome)}")
        signals.extend([outcome.signal] if outcome.signal else [])

    return train_seeds(
        one.config, one.missing, load(one.config), folder, trackers, tell) is not None


def _patterns(options: Options, workdir: Path) -> list[str]:
    """Where to look for finished runs: what was named, else in `runs`; and the mode's own."""
    if options.collect and options.collect_only:
        return list(options.collect)
    places = [workdir] if options.collect else [RUNS, workdir]
    return [*options.collect, *(str(place) for place in places if place.is_dir())]


def _updatable(path: Path | None) -> tuple[Path, str] | None:
    """The file that --update names and its text, checked before anything is run."""
    from flaxdigits.reports.replication import put_between_markers

    if path is None:
        return None
    with clear_errors(path, "read"):
        text = path.read_text(encoding="utf-8")
    try:
        put_between_markers(text, "")
    except FlaxdigitsError as error:
        raise FlaxdigitsError(f"{path}: {error}") from error
    return path, text


def _report(
    console: Console, options: Options, systems: Sequence[System], collection: Collection,
    workdir: Path, update: tuple[Path, str] | None,
) -> None:
    from flaxdigits.reports.replication import ReplicationReport, put_between_markers

    report = ReplicationReport(systems, collection, _command(options))
    folder = RunFolder(workdir)
    for name, content in report.files().items():
        folder.write(name, content)
    console.print(report.terminal())
    for row in report.rows():
        console.print(f"{row.system.name}: {row.sentences()}")
    console.print(report.hardware())
    left_out = [f"{path}: {reason}" for path, reason in sorted(collection.left_out.items())]
    for line in left_out[:MOST_LEFT_OUT]:
        console.print(f"does not count: {line}")
    if len(left_out) > MOST_LEFT_OUT:
        console.print(f"{len(left_out) - MOST_LEFT_OUT} more that do not count are in "
                      f"{workdir / 'replication.json'}")
    if update is not None:
        path, text = update
        RunFolder(path.parent).write(path.name, put_between_markers(text, report.block()).encode())
        console.print(f"updated: {path}")
    console.print(f"report: {workdir / 'replication.html'}, and .md, .json; the runs that count as "
                  f"small files: {workdir / KEPT}")


def _command(options: Options) -> str:
    """What makes the same report again."""
    flags = {"experiment": options.experiment, "seeds": options.seeds, "update": options.update}
    return shlex.join([
        "python", "launch.py", "--mode=replicate",
        *(f"--{name}={value}" for name, value in flags.items() if value is not None),
        *(f"--collect={pattern}" for pattern in options.collect),
        *(["--collect_only"] if options.collect_only else []),
        *(f"--set={override}" for override in options.overrides)])
