"""--mode=replicate: runs what is missing of the replications, collects the rest, and reports."""

import dataclasses
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from flaxdigits.cli.ablation import loader
from flaxdigits.cli.context import absolute_paths, check_before_data, warn_of_unused_gpu
from flaxdigits.cli.options import Options
from flaxdigits.cli.seeds import outcome_line
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.studies.ablation import Load
from flaxdigits.studies.records import Collection, collect, missing
from flaxdigits.studies.replication import System, load_systems, shortened
from flaxdigits.studies.seeds import parse_seeds, train_seeds
from flaxdigits.training import parallel, provenance
from flaxdigits.training.loop import Outcome
from flaxdigits.training.run_folder import RunFolder, clear_errors

RUNS, SEEDS = Path("runs"), "0..4"


def run(options: Options, config: None) -> int:
    """Prints the table and where the page lies; returns the exit status."""
    if options.data == "drawn":
        raise FlaxdigitsError(
            "--data=drawn: the claims are about the real data; drawn ones replicate nothing")
    systems = load_systems(options.experiment, absolute_paths)
    configs = {system.name: shortened(system, options.overrides) for system in systems}
    seeds = parse_seeds(options.seeds or SEEDS)
    workdir = options.workdir() if options.workdirs else RUNS / "replicate"
    patterns = _patterns(options, workdir)
    collection = collect(systems, patterns)
    update = _updatable(options.update)
    console = Console(highlight=False, soft_wrap=True)
    warn_of_unused_gpu()
    signals: list[int] | None = None
    if not options.collect_only:
        load = loader(dataclasses.replace(options, data="real"))
        signals = _run_missing(console, collection, configs, seeds, workdir, load)
        collection = collect(systems, [*patterns, *([str(workdir)] if workdir.is_dir() else [])])
    _report(console, options, systems, collection, workdir, update)
    if signals is None:
        return 0
    told = signal.Signals(signals[0]).name if signals else "train.stop_after"
    console.print(f"paused by {told}; the same command goes on from there")
    return 128 + signals[0] if signals else 0


def _run_missing(
    console: Console, collection: Collection, configs: Mapping[str, Mapping[str, ExperimentConfig]],
    seeds: Sequence[int], workdir: Path, load: Load,
) -> list[int] | None:
    """Runs what no collected run stands for; None, or the signals if they or a pause ended it."""
    signals: list[int] = []
    for runs in (runs for protocols in collection.runs.values() for runs in protocols.values()):
        name = f"{runs.system.name}, {runs.protocol}"
        config = configs[runs.system.name][runs.protocol]
        left = missing(runs, config, seeds)
        if not left:
            continue
        folder = workdir / runs.system.name / runs.protocol
        console.print(f"{name}: seeds {', '.join(map(str, left))}, on {provenance.device_name()}, "
                      f"in {folder}")
        check_before_data(config, folder / "seeds" / str(left[0]))
        if config.train.deterministic:
            parallel.ask_for_deterministic_kernels()

        def tell(seed: int, outcome: Outcome, name: str = name) -> None:
            console.print(f"{name}, seed {seed}: {outcome_line(outcome)}")
            signals.extend([outcome.signal] if outcome.signal else [])

        if train_seeds(config, left, load(config), folder, tell=tell) is None:
            return signals
    return None


def _patterns(options: Options, workdir: Path) -> list[str]:
    """Where to look for finished runs: what was named, or else everywhere in `runs`."""
    if options.collect:
        return list(options.collect)
    return [str(path) for path in dict.fromkeys((RUNS, workdir)) if path.is_dir()]


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
    for path, reason in sorted(collection.left_out.items()):
        console.print(f"does not count: {path}: {reason}")
    if update is not None:
        path, text = update
        RunFolder(path.parent).write(path.name, put_between_markers(text, report.block()).encode())
        console.print(f"updated: {path}")
    console.print(f"report: {workdir / 'replication.html'}, and .md, .json; its runs as small "
                  f"files: {workdir / 'results'}")


def _command(options: Options) -> str:
    """What makes the same report again."""
    flags = {"experiment": options.experiment, "seeds": options.seeds, "update": options.update}
    return shlex.join([
        "python", "launch.py", "--mode=replicate",
        *(f"--{name}={value}" for name, value in flags.items() if value is not None),
        *(f"--collect={pattern}" for pattern in options.collect),
        *(["--collect_only"] if options.collect_only else []),
        *(f"--set={override}" for override in options.overrides)])
