"""Runs a study and compares its variants with the base, seed by seed."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.batches import BatchPlan
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models import build_model
from flaxdigits.studies.seeds import results, summarise, train_seeds
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
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.loop import Outcome
from flaxdigits.training.run import total_steps
from flaxdigits.training.state import init_variables
from flaxdigits.training.teacher import load_teacher

Load = Callable[[ExperimentConfig], Dataset]
OnEnd = Callable[[str, int, Outcome], None]


@dataclasses.dataclass(frozen=True)
class Pause:
    """Why a study is not done: the signal that came, or None for `train.stop_after`."""

    signal: int | None


@dataclasses.dataclass(frozen=True)
class Row:
    """What a variant came to.

    Attributes:
      variant: its name.
      values: the figure of each seed that ended.
      estimate: of them; None if every seed diverged.
      difference: to the base, over the seeds that both have, or if it is not paired, over all;
        None for the base itself and where there are none.
      p_holm: of a paired t-test, corrected for the number of tests in the table.
      is_paired: whether the images are those of the base, so that seeds are compared in pairs.
      diverged: the seeds that did.
      also: further figures by their names; empty if every seed diverged.
    """

    variant: str
    values: Mapping[int, float]
    estimate: Estimate | None
    difference: Difference | None
    p_holm: float | None
    is_paired: bool
    diverged: tuple[int, ...]
    also: Mapping[str, Estimate]


def run_study(
    configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path, load: Load,
    on_end: OnEnd,
) -> Pause | None:
    """Trains what is not finished yet, one variant after another; None when all is done.

    Args:
      configs: by the names of the variants.
      seeds: of each.
      workdir: of the study: `<variant>/seeds/<seed>/` are its runs.
      load: the data of a config.
      on_end: called with each run that has ended, diverged or was paused.

    Raises:
      FlaxdigitsError: as `flaxdigits.studies.seeds.train_seeds` does.
    """
    with Interrupts() as interrupts:
        for variant, config in configs.items():
            if interrupts.received:
                return Pause(interrupts.received)
            summary = train_seeds(
                config, seeds, load(config), seed_workdir(workdir, variant),
                on_end=functools.partial(on_end, variant))
            if summary is None:
                return Pause(interrupts.received)
    return None


def check_variants(
    configs: Mapping[str, ExperimentConfig], figures: Sequence[str], load: Load
) -> None:
    """Checks what needs the data, before anything is trained.

    Raises:
      FlaxdigitsError: naming the variant whose split, schedule or network does not fit the data,
        or whose split lacks the part that a figure is about.
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
            jax.eval_shape(functools.partial(init_variables, model, 0, dataset.images.shape[1:]))
            load_teacher(config, dataset)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"variant {variant!r}: {error}") from error
        for figure in figures:
            part = figure.partition("_")[0]
            if part not in parts:
                raise FlaxdigitsError(
                    f"variant {variant!r} has no {figure}: data.split={config.data.split} has no "
                    f"{part} part; use another split")


def compare_variants(
    configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path, figure: str,
    also: Sequence[str] = (),
) -> list[Row]:
    """A row for each variant, the base first, from the files of its runs.

    Args:
      configs: by the names of the variants.
      seeds: of each.
      workdir: of the study.
      figure: by which they are compared.
      also: further figures of the rows.
    """
    rows = []
    for variant, config in configs.items():
        folder = seed_workdir(workdir, variant)
        ended = results(folder, seeds)
        values = {seed: result[figure] for seed, result in ended.items()}
        rows.append(Row(
            variant, values, estimate(list(values.values())) if values else None, None, None,
            same_images(config, configs[BASE]),
            tuple(map(int, summarise(folder, seeds)["diverged"])),
            {name: estimate([result[name] for result in ended.values()])
             for name in also if ended}))
    return compare_rows(rows)


def compare_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows, the base first, with their differences to it and the tests of these."""
    base, *others = rows
    compared = [base, *(
        dataclasses.replace(row, difference=_difference(row.values, base.values, row.is_paired))
        for row in others)]
    tested = [row for row in compared if row.difference and row.difference.p is not None]
    corrected = dict(zip(
        (row.variant for row in tested), holm([row.difference.p for row in tested]), strict=True))
    return [dataclasses.replace(row, p_holm=corrected.get(row.variant)) for row in compared]


def _difference(
    values: Mapping[int, float], base: Mapping[int, float], is_paired: bool
) -> Difference | None:
    if not is_paired:
        return unpaired_difference(
            list(values.values()), list(base.values())) if values and base else None
    both = [seed for seed in values if seed in base]
    return paired_difference(
        [values[seed] for seed in both], [base[seed] for seed in both]) if both else None


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON values."""
    return [dataclasses.asdict(row) for row in rows]
