"""A study: an experiment and variants of it, all trained with the same seeds.

A file of ten lines makes one: a function `get_study()` that returns a `Study`.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig, to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import ABLATIONS, find, load_and_call, load_experiment
from flaxdigits.metrics import formats
from flaxdigits.models import build_model
from flaxdigits.overrides import apply_overrides
from flaxdigits.patterns import expand_user
from flaxdigits.studies.seeds import checked_seeds

BASE = "base"
OVERRIDE = "train.epochs=5"  # an example


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared with what.

    Attributes:
      experiment: the base: a name, or the path of a file, from the folder of the study's own.
      overrides: of the base and so of all, as `--set` takes them.
      variants: by name, in which overrides each differs from the base.
      grid: by field, its values, as in `{"model.dropout": (0, 0.1)}`; or by a name of your own,
        the overrides of each of its values. Every combination is a variant.
      seeds: that each is trained with.
      figure: the metric of `result.json` by which they are compared: `validation_` or `test_`
        with `accuracy`, `loss`, `errors` or the key of one of `evaluate.metrics`. Choose by the
        validation split.
      also: further metrics that the table shows, of the training split too.

    Raises:
      FlaxdigitsError: naming the first field that is of another kind.
    """

    experiment: str
    overrides: Sequence[str] = ()
    variants: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    grid: Mapping[str, Sequence[Any] | Mapping[str, Sequence[str]]] = dataclasses.field(
        default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    figure: str = "validation_accuracy"
    also: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.experiment, str):
            raise _refused("experiment", "a name, or the path of a file", self.experiment)
        _check_texts("overrides", self.overrides, OVERRIDE)
        _check_variants("variants", self.variants)
        if not isinstance(self.grid, Mapping):
            raise _refused("grid", "values by field, as in {'model.dropout': (0, 0.1)}", self.grid)
        for factor, values in self.grid.items():
            place = f"grid[{factor!r}]"
            if not isinstance(factor, str):
                raise _refused("grid", "values by the names of fields", factor)
            if isinstance(values, Mapping):
                _check_variants(place, values)
            elif not isinstance(values, list | tuple | range):
                raise _refused(place, "several values, as in (0, 0.1)", values)
            if not values:
                raise _refused(place, "at least one value", values)
        checked_seeds(self.seeds)
        if not isinstance(self.figure, str) or not re.fullmatch(
                r"(validation|test)_\w+", self.figure):
            raise _refused(
                "figure", "a metric of the validation or test split, such as validation_accuracy",
                self.figure)
        _check_texts("also", self.also, "test_accuracy")
        for name in self.also:
            if not re.fullmatch(r"(train|validation|test)_\w+", name):
                raise _refused("also", "metrics of a split, such as test_accuracy", name)

    @functools.cached_property
    def recipe(self) -> ExperimentConfig:
        """The config of the experiment, whose file is executed once."""
        return load_experiment(self.experiment)


def _check_variants(field: str, variants: Any) -> None:
    """Raises FlaxdigitsError if these are not overrides by names."""
    if not isinstance(variants, Mapping):
        raise _refused(field, "overrides by names, as in {'long': ('train.epochs=5',)}", variants)
    for name, changes in variants.items():
        if not isinstance(name, str):
            raise _refused(field, "overrides by names, which are texts", name)
        _check_texts(f"{field}[{name!r}]", changes, OVERRIDE)


def _check_texts(field: str, texts: Any, example: str) -> None:
    """Raises FlaxdigitsError if this is no list of texts, or a single one, without its comma."""
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise _refused(field, f"several texts, as in ({example!r},)", texts)


def _refused(field: str, wanted: str, value: Any) -> FlaxdigitsError:
    return FlaxdigitsError(f"{field} must be {wanted}, got {value!r}")


def load_study(name_or_path: str) -> Study:
    """A shipped study, or one of the user's own (`path/to/mine.py`).

    Raises:
      FlaxdigitsError: if there is no such study, or its file does not give one.
    """
    path = find(name_or_path, "--ablation", ABLATIONS)
    study = load_and_call(path, "get_study", Study)
    if not study.experiment.endswith(".py"):
        return study
    beside = path.parent / expand_user(study.experiment)
    return dataclasses.replace(study, experiment=str(beside))


def variants_of(study: Study, overrides: Sequence[str] = ()) -> dict[str, ExperimentConfig]:
    """The configs by the names of the variants, the base first.

    Args:
      study: as a file gives it.
      overrides: for the base and so for all, such as those of the command line.

    Raises:
      FlaxdigitsError: naming the variant whose config is not valid, or that is there twice, or
        that is no other than the base.
    """
    base = apply_overrides(study.recipe, [*study.overrides, *overrides])
    if base.seed != study.recipe.seed:
        raise FlaxdigitsError(f"{study.experiment} with seed={base.seed}: a study gives every seed "
                              "in turn: name them in seeds, or with --seeds")
    _check_metrics(study, base)
    configs = {BASE: base}
    for name, changes in [*study.variants.items(), *_combinations(study.grid)]:
        try:
            config = apply_overrides(base, changes)
            build_model(config.model, num_classes=1)
            _check_metrics(study, config)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"variant {name!r}: {error}") from error
        if config.seed != base.seed:
            raise FlaxdigitsError(f"variant {name!r} changes seed, which every variant is given "
                                  "in turn: name them in seeds, or with --seeds")
        if config == base and name in study.variants:
            raise FlaxdigitsError(f"variant {name!r} changes nothing of the base, which has "
                                  f"{', '.join(changes) or 'the same fields'} too: leave out one "
                                  "of them")
        if config == base:  # its place in the grid
            continue
        if folder_name(name) in map(folder_name, configs):
            raise FlaxdigitsError(f"variant {name!r} is there twice: give it another name")
        if folder_name(name).startswith("study."):  # as the files of the table are named
            raise FlaxdigitsError(f"variant {name!r}: give it a name that begins otherwise")
        for other, known in configs.items():
            if config == known:
                raise FlaxdigitsError(
                    f"variant {name!r} is {other!r} once more: leave out one of them")
        configs[name] = config
    return configs


def _check_metrics(study: Study, config: ExperimentConfig) -> None:
    """Raises FlaxdigitsError if a run of this config does not compute what the study shows."""
    known = formats(config.evaluate.metrics)
    for field, names in (("figure", [study.figure]), ("also", study.also)):
        for name in names:
            if name.partition("_")[2] not in known:
                raise _refused(field, f"a split with one of {', '.join(known)} (others are named "
                                      "by evaluate.metrics)", name)


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
