"""`--ablation=NAME`: runs a study, or goes on with it, and writes its table."""

import functools
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from flaxdigits.api.context import check_before_data, data_locations, load_data, warn_of_unused_gpu
from flaxdigits.api.experiment import absolute_paths
from flaxdigits.api.seeds import outcome_line
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.result import tell_of_drawn_data
from flaxdigits.studies.ablation import Load, check_figures, compare_variants, run_study
from flaxdigits.studies.estimate import measure_cost
from flaxdigits.studies.on_ray import RayCluster
from flaxdigits.studies.seeds import parse_seeds, seed_folders, unfinished
from flaxdigits.studies.study import ABLATIONS, BASE, Study, load_study, seed_workdir, variants_of
from flaxdigits.training import parallel, provenance
from flaxdigits.training.loop import Outcome
from flaxdigits.training.run import Run
from flaxdigits.training.run_folder import RunFolder


def run(options: Options, config: None) -> int:
    """Prints the table and where it lies; returns the exit status."""
    study = load_study(options.ablation)
    configs = {name: absolute_paths(config)
               for name, config in variants_of(study, options.overrides).items()}
    seeds = parse_seeds(options.seeds) if options.seeds is not None else tuple(study.seeds)
    name = Path(options.ablation).stem
    workdir = options.workdir() if options.workdirs else Path("runs") / "ablations" / name
    for variant, one in configs.items():
        check_before_data(one, seed_workdir(workdir, variant))
    if any(config.train.deterministic for config in configs.values()):
        parallel.ask_for_deterministic_kernels()
    console = Console(highlight=False, soft_wrap=True)
    is_on_ray = options.executor == "ray"
    if is_on_ray:
        jax.config.update("jax_platforms", "cpu")  # other devices are left to the runs
    warn_of_unused_gpu()
    load = loader(options)
    check_figures(configs, [study.figure, *study.also], load)
    source = load(configs[BASE]).source
    tell_of_drawn_data(console, source)
    runs = len(configs) * len(seeds)
    console.print(f"{name}: {len(configs)} variants of {study.experiment}, {len(seeds)} seeds, "
                  f"{runs} runs, on {'Ray' if is_on_ray else provenance.device_name()}, "
                  f"in {workdir}")
    if options.dry_run:
        console.print(plan_table(
            {variant: (config, unfinished(seed_workdir(workdir, variant), seeds))
             for variant, config in configs.items()}, seeds, load))
        return 0

    def tell(variant: str, seed: int, outcome: Outcome) -> None:
        console.print(f"{variant}, seed {seed}: {outcome_line(outcome)}")

    execute = RayCluster(
        study.experiment, data_locations(**data_arguments(options)), options.cpus_per_run,
        options.gpus_per_run,
    ) if is_on_ray else run_study
    pause = execute(configs, seeds, workdir, load, tell)
    if pause is not None:
        told = signal.Signals(pause.signal).name if pause.signal else "train.stop_after"
        console.print(f"paused by {told}; the same command goes on from there")
        return 128 + pause.signal if pause.signal else 0
    _tell_table(console, options, study, configs, seeds, workdir)
    tell_of_drawn_data(console, source)
    return 0


def loader(options: Options) -> Load:
    """`load_data`, reading each data set once."""
    @functools.cache
    def load(name: str, folder: str | None, image_size: int | None) -> Dataset:
        return load_data(known[name, folder, image_size], **data_arguments(options))

    known: dict[tuple, ExperimentConfig] = {}

    def load_for(config: ExperimentConfig) -> Dataset:
        key = config.data.dataset, config.data.folder, config.data.image_size
        known.setdefault(key, config)
        return load(*key)

    return load_for


def _tell_table(
    console: Console, options: Options, study: Study, configs: Mapping[str, ExperimentConfig],
    seeds: Sequence[int], workdir: Path,
) -> None:
    from flaxdigits.reports.study import StudyReport  # matplotlib takes its time to import

    rows = compare_variants(configs, seeds, workdir, study.figure, study.also)
    if rows[0].estimate is None:
        raise FlaxdigitsError("the base diverged with every seed: there is nothing to compare with")
    report = StudyReport(
        load_title(options.ablation), study.figure,
        _about(options, study, configs, seeds, workdir, next(iter(rows[0].values))), rows)
    folder = RunFolder(workdir)
    for name, content in report.files().items():
        folder.write(name, content)
    console.print(report.terminal())
    for line in report.notes():
        console.print(line)
    console.print(f"table: {workdir / 'study.md'}, and .csv, .json, .png")


def load_title(name_or_path: str) -> str:
    """The first line of a study's docstring, or its name."""
    from flaxdigits.experiments import find, title

    path = find(name_or_path, "--ablation", ABLATIONS)
    return title(path).rstrip(".") or path.stem


def _about(
    options: Options, study: Study, configs: Mapping[str, ExperimentConfig],
    seeds: Sequence[int], workdir: Path, seed: int,
) -> dict[str, str]:
    """What a reader must know to repeat the study and to judge it."""
    base = configs[BASE]
    folder = RunFolder(seed_folders(seed_workdir(workdir, BASE), seeds)[seed])
    result, versions = folder.result(), folder.about()["versions"]
    part = study.figure.partition("_")[0]
    hardware = provenance.machine()
    command = ["python", "launch.py", f"--ablation={options.ablation}",
               *([f"--seeds={options.seeds}"] if options.seeds is not None else []),
               *(word for override in options.overrides for word in ("--set", override))]
    if options.executor == "ray":
        command += ["--executor=ray", f"--cpus_per_run={options.cpus_per_run}",
                    f"--gpus_per_run={options.gpus_per_run}"]
        hardware = (f"Ray, {options.cpus_per_run} CPU cores and {options.gpus_per_run} GPUs a run "
                    f"({result['device']})")
    return {
        "command": f"`{shlex.join(command)}`",
        "base": " ".join([study.experiment, *study.overrides, *options.overrides]),
        "seeds": ", ".join(map(str, seeds)),
        "data": f"{result['dataset']} ({result['data_source']}), split {result['split']}: "
                f"{result['train_examples']:,} images trained on, {result[f'{part}_examples']:,} "
                "scored",
        "training": f"{result['epochs']:g} epochs in batches of {base.train.batch_size}, scored "
                    f"at the {result['checkpoint']} checkpoint",
        "hardware": f"{hardware}, JAX {versions['jax']}, about "
                    f"{result['seconds_training'] + result['seconds_evaluating']:.0f} s a run of "
                    "the base"}


def plan_table(
    left: Mapping[str, tuple[ExperimentConfig, Sequence[int]]], seeds: Sequence[int], load: Load
) -> Table:
    """What is left to run and how long it will take, each measured by a second of its steps.

    Args:
      left: the config and the seeds that are not done yet, by a name.
      seeds: all.
      load: the data of a config.
    """
    table = Table(show_footer=True)
    rows, total = [], 0.0
    for name, (config, to_run) in left.items():
        seconds = 0.0
        if to_run:
            cost = measure_cost(Run(config, load(config)))
            seconds = cost.compiling + len(to_run) * cost.training_and_scoring
        total += seconds
        rows.append((name, str(len(seeds) - len(to_run)), ", ".join(map(str, to_run)) or "-",
                     duration(seconds)))
    for name, footer in (("runs", "total"), ("done", ""), ("seeds to run", ""),
                         ("about", duration(total))):
        table.add_column(name, footer, justify="right" if name == "about" else "left")
    for row in rows:
        table.add_row(*row)
    return table


def duration(seconds: float) -> str:
    """Like 45 s, 12 min or 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
