"""Runs studies (ablations): variants of an experiment, trained with the same seeds."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from flaxdigits.api.arguments import PathLike, path_text
from flaxdigits.api.console import print_table
from flaxdigits.api.experiment import absolute_paths
from flaxdigits.api.plan import plan_table
from flaxdigits.api.seeds import outcome_line
from flaxdigits.api.session import Session, Source, check_before_data, new_run_folder
from flaxdigits.command import command_line
from flaxdigits.config import ExperimentConfig, TrainConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import find, title
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.metrics import formats
from flaxdigits.plurals import counted
from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.reports.result import data_name, print_synthetic_data_notice
from flaxdigits.reports.study import StudyReport
from flaxdigits.studies.ablation import VariantResult, check_variants, compare_variants, run_study
from flaxdigits.studies.grid import grid_of
from flaxdigits.studies.on_ray import RayCluster
from flaxdigits.studies.seeds import checked_seeds, seed_configs, seed_folders, unfinished
from flaxdigits.studies.study import ABLATIONS, BASE, Study, load_study, seed_workdir, variants_of
from flaxdigits.training import processes, provenance
from flaxdigits.training.results import Outcome
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.runs import check_folders

Executor = Literal["local", "ray"]


@dataclasses.dataclass(frozen=True)
class AblationOutcome:
    """The outcome of a study.

    Attributes:
      variants: the result of each variant, the base first; empty if the study was paused or
        `dry_run` was set.
      signal: the signal that paused the study, or None.
    """

    variants: list[VariantResult]
    signal: int | None = None


@pinned_settings()
def run_ablation(
    ablation: PathLike, *overrides: str, seeds: Sequence[int] | None = None,
    workdir: PathLike | None = None, dry_run: bool = False, executor: Executor = "local",
    cpus_per_run: int = 1, gpus_per_run: int = 0, data: Source = "auto",
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    command: str | None = None, console: Console | None = None,
) -> AblationOutcome:
    """Runs or resumes a study, and writes its table.

    Args:
      ablation: the name of a study in `experiments/ablations/`, or the path of a study file.
      *overrides: overrides of the base and all variants, as for `experiment`.
      seeds: the seeds to train, such as `range(5)`; None: the seeds of the study.
      workdir: the folder of the study; None: `runs/ablations/<name>`.
      dry_run: only print the runs and an estimate of how long they take.
      executor: `local`, or `ray` to train each run as a task of a Ray cluster; see `RayCluster`.
        To leave the GPU of this machine to the runs, first call
        `jax.config.update("jax_platforms", "cpu")`.
      cpus_per_run: the number of CPU cores of each run on Ray.
      gpus_per_run: the number of GPUs of each run on Ray.
      data: See `train`.
      raw_data_dir: See `train`.
      data_dir: See `train`.
      command: the command to print below the table; None: that of this process.
      console: See `train`.

    Raises:
      FlaxdigitsError: if there is no such study, a variant is not valid, or every seed of the
        base diverged.
    """
    processes.check_single_process()
    name_or_path = path_text(ablation, "ablation")
    study = load_study(name_or_path)
    configs = {name: absolute_paths(config)
               for name, config in variants_of(study, overrides).items()}
    chosen = checked_seeds(study.seeds if seeds is None else seeds)
    name = Path(name_or_path).stem
    folder = new_run_folder(workdir, f"ablations/{name}")
    for variant, config in configs.items():
        first, *_ = seed_configs(config, chosen, seed_workdir(folder, variant))
        check_before_data(config, first)
    if executor not in get_args(Executor):
        raise FlaxdigitsError(
            f"executor must be one of {', '.join(get_args(Executor))}, got {executor!r}")
    session = Session.start(configs.values(), console, data, raw_data_dir, data_dir)
    console, load, progress = session.console, session.load, session.progress
    cluster = None if executor == "local" else RayCluster(
        study.experiment, session.locations, cpus_per_run, gpus_per_run)
    with progress.stage("checking the variants"):
        check_variants(configs, [study.metric, *study.extra_metrics], load)
        for variant, config in configs.items():
            check_folders(
                seed_configs(config, chosen, seed_workdir(folder, variant)), load(config))
    source = load(configs[BASE]).source
    print_synthetic_data_notice(console, source)
    runs = len(configs) * len(chosen)
    console.print(f"{name}: {counted(len(configs), 'variant')} of {study.experiment}, "
                  f"{counted(len(chosen), 'seed')}, {counted(runs, 'run')}, on "
                  f"{'Ray' if cluster else provenance.device_name()}, in {folder}")
    grid = grid_of(study, configs)
    if dry_run:
        print_table(console, plan_table(
            {grid.label(variant): (config, unfinished(seed_workdir(folder, variant), chosen))
             for variant, config in configs.items()}, chosen, load))
        return AblationOutcome([])

    def on_end(variant: str, seed: int, outcome: Outcome) -> None:
        console.print(f"{variant}, seed {seed}: {outcome_line(outcome)}")

    pause = (cluster or run_study)(
        configs, chosen, folder, load, on_end, write_report_or_warn, progress)
    if pause is not None:
        session.print_pause(pause.signal)
        return AblationOutcome([], pause.signal)
    variants = compare_variants(configs, chosen, folder, study.metric, study.extra_metrics)
    if variants[0].estimate is None:
        raise FlaxdigitsError("the base diverged with every seed: there is nothing to compare with")
    lines = _lines_below_table(
        command or command_line(), overrides, study, configs, chosen, folder,
        next(iter(variants[0].values)), cluster)
    _write_report(console, folder, StudyReport(
        _title(name_or_path), study.metric, formats(configs[BASE].evaluate.metrics), lines,
        variants, grid))
    print_synthetic_data_notice(console, source)
    return AblationOutcome(variants)


def _write_report(console: Console, workdir: Path, report: StudyReport) -> None:
    folder = RunFolder(workdir)
    for name, content in report.files().items():
        folder.write(name, content)
    for table, notes in report.tables():
        print_table(console, table)
        for line in notes:
            console.print(line)
    console.print(f"table: {workdir / 'study.md'}, and .csv, .json, .png")


def _title(name_or_path: str) -> str:
    """Returns the first docstring line of a study file, or its name."""
    path = find(name_or_path, "ablation", ABLATIONS)
    return title(path).rstrip(".") or path.stem


def _lines_below_table(
    command: str, overrides: Sequence[str], study: Study,
    configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path, seed: int,
    cluster: RayCluster | None,
) -> dict[str, str]:
    """Returns the lines below the table by label: the command, the recipe, the data, the hardware.

    Args:
      command: the command that creates the table.
      overrides: overrides of the base and all variants.
      study: the study.
      configs: the config of each variant by its name.
      seeds: the seeds of the study.
      workdir: the folder of the study.
      seed: a seed whose run of the base has finished.
      cluster: the Ray cluster that trained the runs, if any.
    """
    base = configs[BASE]
    folder = RunFolder(seed_folders(seed_workdir(workdir, BASE), seeds)[seed])
    result, metadata = folder.result(), folder.metadata()
    assert result is not None  # this run has finished
    split = study.metric.partition("_")[0]
    seconds = result["seconds_training"] + result["seconds_evaluating"]
    hardware = metadata.get("machine", result["device"]) if cluster is None else (
        f"Ray, {counted(cluster.cpus, 'CPU core')} and {counted(cluster.gpus, 'GPU')} per run "
        f"({result['device']})")
    return {
        "command": f"`{command}`",
        "base": " ".join([study.experiment, *study.overrides, *overrides]),
        "seeds": ", ".join(map(str, seeds)),
        "data": f"{data_name(result['dataset'], result['data_source'], base.data.folder)}, split "
                f"{result['split']}: "
                f"{result['train_examples']:,} training images, evaluated on "
                f"{result[f'{split}_examples']:,}",
        "training": f"{_epochs(result, study.recipe.train)} in batches of {base.train.batch_size}, "
                    f"evaluated at the {result['checkpoint']} checkpoint",
        "hardware": f"{hardware}, JAX {metadata.get('versions', {}).get('jax', 'unknown')}, about "
                    f"{seconds:.{int(seconds < 10)}f} s per run of the base"}


def _epochs(result: Mapping[str, Any], recipe: TrainConfig) -> str:
    """Returns the number of epochs of the base, and the recipe's number if that is larger."""
    epochs = counted(result["epochs"], "epoch")
    if recipe.steps is None and result["epochs"] < recipe.epochs:
        return f"{epochs.split()[0]} of the recipe's {counted(recipe.epochs, 'epoch')}"
    return epochs
