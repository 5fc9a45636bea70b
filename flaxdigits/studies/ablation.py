"""Runs a study and compares its variants with the base, seed by seed."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.batches import BatchPlan
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models import build_model
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.studies.seeds import results, summarize, train_seeds
from flaxdigits.studies.statistics import (
    Difference,
    Estimate,
    estimate,
    holm,
    paired_difference,
    unpaired_difference,
)
from flaxdigits.studies.study import BASE, same_images, seed_workdir
from flaxdigits.training.component_checks import RunShape, check_components
from flaxdigits.training.experiment import total_steps
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.progress import TrainingStage
from flaxdigits.training.results import Outcome, ReportWriter, no_report
from flaxdigits.training.state import variables_shapes
from flaxdigits.training.teacher import load_teacher

LoadDataset = Callable[[ExperimentConfig], Dataset]
OnRunEnd = Callable[[str, int, Outcome], None]  # called with variant, seed and outcome


@dataclasses.dataclass(frozen=True)
class Pause:
    """Why a study was paused: the signal that was received, or None for `train.stop_after`."""

    signal: int | None


@dataclasses.dataclass(frozen=True)
class VariantResult:
    """The result of one variant of a study.

    Attributes:
      variant: the name of the variant.
      values: the compared metric by seed, without the seeds that diverged.
      estimate: the mean of the values and its interval; None if every seed diverged.
      difference: the difference from the base, over the seeds that finished for both if
        `is_paired`, otherwise over all seeds. None for the base itself, and if there is nothing to
        compare.
      p_holm: the p-value of a paired t-test, corrected for the number of tests in the table.
      is_paired: whether the variant is evaluated on the same images as the base, so the seeds
        are compared in pairs.
      diverged: the seeds that diverged.
      extra_metrics: estimates of further metrics by name; empty if every seed diverged.
    """

    variant: str
    values: Mapping[int, float]
    estimate: Estimate | None
    difference: Difference | None
    p_holm: float | None
    is_paired: bool
    diverged: tuple[int, ...]
    extra_metrics: Mapping[str, Estimate]


def run_study(
    configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path, load: LoadDataset,
    on_end: OnRunEnd, write_report: ReportWriter = no_report, progress: Progress = NO_PROGRESS,
) -> Pause | None:
    """Trains the unfinished runs of a study, one variant after another.

    Args:
      configs: the configs by the names of the variants.
      seeds: the seeds of each variant.
      workdir: the folder of the study; its runs are in `<variant>/seeds/<seed>/`.
      load: returns the data set of a config.
      on_end: called with each run that has finished, diverged or was paused.
      write_report: see `flaxdigits.training.runs.train_many`.
      progress: is notified of the train steps, and of other long stages.

    Returns:
      Why the study was paused, or None if all runs have ended.

    Raises:
      FlaxdigitsError: as `flaxdigits.studies.seeds.train_seeds` does.
    """
    with Interrupts() as interrupts:
        for variant, config in configs.items():
            if interrupts.received:
                return Pause(interrupts.received)
            summary = train_seeds(
                config, seeds, load(config), seed_workdir(workdir, variant),
                lambda path, variant=variant: [
                    TrainingStage(progress, f"{variant}, seed {path.name}")],
                functools.partial(on_end, variant), write_report, progress)
            if summary is None:
                return Pause(interrupts.received)
    return None


def check_variants(
    configs: Mapping[str, ExperimentConfig], metrics: Sequence[str], load: LoadDataset
) -> None:
    """Checks, before any training, that every variant is compatible with its data.

    Raises:
      FlaxdigitsError: naming the variant whose split, schedule or network does not fit the data,
        or whose split lacks the part that a metric is computed on.
    """
    for variant, config in configs.items():
        try:
            dataset = load(config)
            parts = split_indices(config.data, dataset)
            plan = BatchPlan(len(parts["train"]), config.train.batch_size, devices=1)
            check_components(config, RunShape(
                dataset.images.shape[1:], len(dataset.class_names),
                total_steps(config.train, plan), plan.steps_per_epoch))
            config.optimizer.schedule.build(
                config.optimizer.learning_rate, total_steps(config.train, plan),
                plan.steps_per_epoch)
            model = build_model(config.model, len(dataset.class_names))
            variables_shapes(model, dataset.images.shape[1:])  # raises if the images do not fit
            load_teacher(config, dataset)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"variant {variant!r}: {error}") from error
        for metric in metrics:
            part = metric.partition("_")[0]
            if part not in parts:
                raise FlaxdigitsError(
                    f"variant {variant!r} has no {metric}: data.split={config.data.split} has no "
                    f"{part} part; use another split")


def compare_variants(
    configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path, metric: str,
    extra_metrics: Sequence[str] = (),
) -> list[VariantResult]:
    """Reads the results of all variants, and compares them with the base.

    Args:
      configs: the configs by the names of the variants.
      seeds: the seeds of each variant.
      workdir: the folder of the study.
      metric: the metric of `result.json` that is compared.
      extra_metrics: further metrics to read.

    Returns:
      The result of every variant, the base first.

    Raises:
      FlaxdigitsError: if a `result.json` or `diverged.json` is damaged.
    """
    variants = []
    for variant, config in configs.items():
        folder = seed_workdir(workdir, variant)
        finished = results(folder, seeds)
        values = {seed: result[metric] for seed, result in finished.items()}
        variants.append(VariantResult(
            variant, values, estimate(list(values.values())) if values else None, None, None,
            same_images(config, configs[BASE]),
            tuple(map(int, summarize(folder, seeds)["diverged"])),
            {name: estimate([result[name] for result in finished.values()])
             for name in extra_metrics if finished}))
    return compare_with_base(variants)


def compare_with_base(variants: Sequence[VariantResult]) -> list[VariantResult]:
    """Adds to each variant its difference from the base and the corrected p-value.

    The base is the first of `variants`.
    """
    base, *others = variants
    compared = [base, *(
        dataclasses.replace(
            other, difference=_difference(other.values, base.values, other.is_paired))
        for other in others)]
    p_values = {result.variant: result.difference.p for result in compared
                if result.difference and result.difference.p is not None}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [dataclasses.replace(result, p_holm=corrected.get(result.variant))
            for result in compared]


def _difference(
    values: Mapping[int, float], base: Mapping[int, float], is_paired: bool
) -> Difference | None:
    """Returns the difference from the base; None if there is nothing to compare."""
    if not is_paired:
        return unpaired_difference(
            list(values.values()), list(base.values())) if values and base else None
    both = [seed for seed in values if seed in base]
    return paired_difference(
        [values[seed] for seed in both], [base[seed] for seed in both]) if both else None


def as_json(variants: Sequence[VariantResult]) -> list[dict[str, Any]]:
    """Converts the results of variants to JSON values."""
    return [dataclasses.asdict(result) for result in variants]
