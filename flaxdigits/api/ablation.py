"""Studies: variants of an experiment, compared with the same seeds."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from flaxdigits.api.arguments import PathLike, Source
from flaxdigits.api.context import (
    check_before_data,
    check_devices,
    data_locations,
    loader,
    make_console,
    print_table,
    report_pause,
)
from flaxdigits.api.experiment import absolute_paths
from flaxdigits.api.plan import plan_table
from flaxdigits.api.seeds import outcome_line
from flaxdigits.config import ExperimentConfig, TrainConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import find, title
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.metrics import Format, formats
from flaxdigits.patterns import expand_user
from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.reports.result import print_synthetic_data_notice
from flaxdigits.studies.ablation import Row, check_variants, compare_variants, run_study
from flaxdigits.studies.on_ray import RayCluster
from flaxdigits.studies.seeds import checked_seeds, seed_configs, seed_folders, unfinished
from flaxdigits.studies.study import ABLATIONS, BASE, Study, load_study, seed_workdir, variants_of
from flaxdigits.training import parallel, processes, provenance
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.runs import check_folders
from flaxdigits.training.trainer import Outcome

Executor = Literal["local", "ray"]


@dataclasses.dataclass(frozen=True)
class AblationOutcome:
    """How a study ended.

    Attributes:
      rows: a row for each variant, the base first; none if it was paused or only planned.
      signal: the signal that paused it, if one did.
    """

    rows: list[Row]
    signal: int | None = None


@pinned_settings()
def run_ablation(
    ablation: PathLike, *overrides: str, seeds: Sequence[int] | None = None,
    workdir: PathLike | None = None, dry_run: bool = False, executor: Executor = "local",
    cpus_per_run: int = 1, gpus_per_run: int = 0, data: Source = "auto",
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    command: str = "flaxdigits.run_ablation", console: Console | None = None,
) -> AblationOutcome:
    """Runs a study, or goes on with it, and writes its table.

    Args:
      ablation: a name of `experiments/ablations/`, or the path of a file with a `get_study()`.
      *overrides: for the base and so for all variants, as for `experiment`.
      seeds: like `range(5)`; None: the study's own.
      workdir: of all its runs; None is `runs/ablations/<name>`.
      dry_run: only print what would be run, and how long it would take.
      executor: `ray` makes each run a task of a Ray cluster; see `RayCluster`. Where the GPU of
        this machine is to be theirs, call `jax.config.update("jax_platforms", "cpu")` first.
      cpus_per_run: CPU cores that Ray gives each.
      gpus_per_run: GPUs that Ray gives each.
      data: as for `train`.
      raw_data_dir: as for `train`.
      data_dir: as for `train`.
      command: what the table says it was made by.
      console: as for `train`.

    Raises:
      FlaxdigitsError: if there is no such study, a variant is not valid, or every seed of the
        base diverged.
    """
    processes.check_single_process()
    named = os.fspath(ablation)
    study = load_study(named)
    configs = {name: absolute_paths(config)
               for name, config in variants_of(study, overrides).items()}
    chosen = checked_seeds(study.seeds if seeds is None else seeds)
    name = Path(named).stem
    folder = Path("runs/ablations") / name if workdir is None else expand_user(workdir)
    RunFolder(folder).check_name()
    for variant, one in configs.items():
        first, *_ = seed_configs(one, chosen, seed_workdir(folder, variant))
        check_before_data(one, first)
    if any(config.train.deterministic for config in configs.values()):
        parallel.ask_for_deterministic_kernels()
    if executor not in get_args(Executor):
        raise FlaxdigitsError(
            f"executor must be one of {', '.join(get_args(Executor))}, got {executor!r}")
    cluster = None
    if executor == "ray":
        cluster = RayCluster(study.experiment, data_locations(data, raw_data_dir, data_dir),
                             cpus_per_run, gpus_per_run)
    console = console or make_console()
    check_devices()
    load = loader(data, raw_data_dir, data_dir)
    check_variants(configs, [study.figure, *study.also], load)
    for variant, one in configs.items():
        check_folders(seed_configs(one, chosen, seed_workdir(folder, variant)), load(one))
    source = load(configs[BASE]).source
    print_synthetic_data_notice(console, source)
    runs = len(configs) * len(chosen)
    console.print(f"{name}: {len(configs)} variants of {study.experiment}, {len(chosen)} seeds, "
                  f"{runs} runs, on {'Ray' if cluster else provenance.device_name()}, in {folder}")
    if dry_run:
        print_table(console, plan_table(
            {variant: (config, unfinished(seed_workdir(folder, variant), chosen))
             for variant, config in configs.items()}, chosen, load))
        return AblationOutcome([])

    def on_end(variant: str, seed: int, outcome: Outcome) -> None:
        console.print(f"{variant}, seed {seed}: {outcome_line(outcome)}")

    pause = (cluster or run_study)(
        configs, chosen, folder, load, on_end, write_report_or_warn)
    if pause is not None:
        report_pause(console, pause.signal)
        return AblationOutcome([], pause.signal)
    rows = compare_variants(configs, chosen, folder, study.figure, study.also)
    if rows[0].estimate is None:
        raise FlaxdigitsError("the base diverged with every seed: there is nothing to compare with")
    shown = formats(configs[BASE].evaluate.metrics)
    _print_table(console, _title(named), study.figure, shown, rows, folder, _about(
        command, overrides, study, configs, chosen, folder, next(iter(rows[0].values)), cluster))
    print_synthetic_data_notice(console, source)
    return AblationOutcome(rows)


def _print_table(
    console: Console, title: str, figure: str, shown: Mapping[str, Format], rows: list[Row],
    workdir: Path, about: dict[str, str],
) -> None:
    from flaxdigits.reports.study import StudyReport  # matplotlib takes its time to import

    report = StudyReport(title, figure, shown, about, rows)
    folder = RunFolder(workdir)
    for name, content in report.files().items():
        folder.write(name, content)
    print_table(console, report.terminal())
    for line in report.notes():
        console.print(line)
    console.print(f"table: {workdir / 'study.md'}, and .csv, .json, .png")


def _title(name_or_path: str) -> str:
    """The first line of a study's docstring, or its name."""
    path = find(name_or_path, "--ablation", ABLATIONS)
    return title(path).rstrip(".") or path.stem


def _about(
    command: str, overrides: Sequence[str], study: Study,
    configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path, seed: int,
    cluster: RayCluster | None,
) -> dict[str, str]:
    """What a reader must know to repeat the study and to judge it."""
    base = configs[BASE]
    folder = RunFolder(seed_folders(seed_workdir(workdir, BASE), seeds)[seed])
    result, run = folder.result(), folder.about()
    part = study.figure.partition("_")[0]
    hardware = run.get("machine", result["device"]) if cluster is None else (
        f"Ray, {cluster.cpus} CPU cores and {cluster.gpus} GPUs a run ({result['device']})")
    return {
        "command": f"`{command}`",
        "base": " ".join([study.experiment, *study.overrides, *overrides]),
        "seeds": ", ".join(map(str, seeds)),
        "data": f"{result['dataset']} ({result['data_source']}), split {result['split']}: "
                f"{result['train_examples']:,} images trained on, {result[f'{part}_examples']:,} "
                "scored",
        "training": f"{_epochs(result, study.recipe.train)} in batches of {base.train.batch_size}, "
                    f"scored at the {result['checkpoint']} checkpoint",
        "hardware": f"{hardware}, JAX {run.get('versions', {}).get('jax', 'unknown')}, about "
                    f"{result['seconds_training'] + result['seconds_evaluating']:.0f} s a run of "
                    "the base"}


def _epochs(result: Mapping[str, Any], recipe: TrainConfig) -> str:
    """How long the base was trained, and where that is less, how long its recipe is."""
    text = f"{result['epochs']:g}"
    if recipe.steps is None and result["epochs"] < recipe.epochs:
        return f"{text} of the recipe's {recipe.epochs} epochs"
    return f"{text} epochs"
