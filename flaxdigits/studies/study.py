"""A study: an experiment and variants of it, all trained with the same seeds.

A file of ten lines makes one: a function `get_study()` that returns a `Study`.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig, to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import SHIPPED, find, load_experiment, made_by
from flaxdigits.overrides import apply_overrides

ABLATIONS = SHIPPED / "ablations"
BASE = "base"
FIGURES = ("validation_accuracy", "test_accuracy")
SHOWN = (*FIGURES, "validation_loss", "test_loss", "train_accuracy", "train_loss")


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared with what.

    Attributes:
      experiment: the base: a name, or the path of a file.
      overrides: of the base and so of all, as `--set` takes them.
      variants: by name, in which overrides each differs from the base.
      grid: by field, its values, as in `{"model.dropout": (0, 0.1)}`; or by a name of your own,
        the overrides of each of its values. Every combination is a variant.
      seeds: that each is trained with.
      figure: of `result.json`, by which they are compared. Choose by `validation_accuracy`.
      also: further figures that the table shows.
    """

    experiment: str
    overrides: Sequence[str] = ()
    variants: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    grid: Mapping[str, Sequence[Any] | Mapping[str, Sequence[str]]] = dataclasses.field(
        default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    figure: str = FIGURES[0]
    also: Sequence[str] = ()


def load_study(name_or_path: str) -> Study:
    """A shipped study, or one of the user's own (`path/to/mine.py`).

    Raises:
      FlaxdigitsError: if there is no such study, or its file does not give one.
    """
    path = find(name_or_path, "--ablation", ABLATIONS)
    study = made_by(path, "get_study", Study)
    if study.figure not in FIGURES:
        raise FlaxdigitsError(
            f"{path}: figure must be one of {', '.join(FIGURES)}, got {study.figure!r}")
    for name in study.also:
        if name not in SHOWN:
            raise FlaxdigitsError(
                f"{path}: also must be of {', '.join(SHOWN)}, got {name!r}")
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        raise FlaxdigitsError(f"{path}: seeds must be different numbers, got {study.seeds}")
    return study


def variants_of(study: Study, overrides: Sequence[str] = ()) -> dict[str, ExperimentConfig]:
    """The configs by the names of the variants, the base first.

    Args:
      study: as a file gives it.
      overrides: for the base and so for all, such as those of the command line.

    Raises:
      FlaxdigitsError: naming the variant whose config is not valid, or that is there twice.
    """
    base = apply_overrides(load_experiment(study.experiment), [*study.overrides, *overrides])
    configs = {BASE: base}
    for name, changes in [*study.variants.items(), *_combinations(study.grid)]:
        try:
            config = apply_overrides(base, changes)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"variant {name!r}: {error}") from error
        if config == base:  # the place of the base in the grid
            continue
        if folder_name(name) in map(folder_name, configs):
            raise FlaxdigitsError(f"variant {name!r} is there twice: give it another name")
        configs[name] = config
    return configs


def folder_name(variant: str) -> str:
    """A variant's name as that of a folder."""
    return re.sub(r"[^\w.=,+-]+", "_", variant).strip("._") or "_"


def same_images(config: ExperimentConfig, other: ExperimentConfig) -> bool:
    """Whether both are scored on the same images."""
    def images(of: ExperimentConfig) -> list[Any]:
        data = to_dict(of.data)
        return [data[name] for name in
                ("dataset", "folder", "image_size", "split", "fold", "split_seed")]

    return images(config) == images(other)


def seed_workdir(workdir: Path, variant: str) -> Path:
    """The folder of a variant's seeds."""
    return workdir / folder_name(variant)


def _combinations(
    grid: Mapping[str, Sequence[Any] | Mapping[str, Sequence[str]]]
) -> Iterator[tuple[str, list[str]]]:
    """The name and the overrides of every combination of the grid's values."""
    def levels(factor: str) -> list[tuple[str, list[str]]]:
        values = grid[factor]
        if isinstance(values, Mapping):
            return [(str(name), list(changes)) for name, changes in values.items()]
        return [(f"{factor.rpartition('.')[2]}={_text(value)}", [f"{factor}={_text(value)}"])
                for value in values]

    if grid:
        for levels_of_one in itertools.product(*map(levels, grid)):
            yield (", ".join(name for name, _ in levels_of_one),
                   [change for _, changes in levels_of_one for change in changes])


def _text(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
