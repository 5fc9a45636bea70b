"""Studies (ablations): an experiment and variants of it, all trained with the same seeds.

A study file defines a function `get_study()` that returns a `Study`.
"""

import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig, to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import ABLATIONS, find, load_and_call, load_experiment
from flaxdigits.metrics import formats
from flaxdigits.models import build_model
from flaxdigits.old_names import accept_old_names
from flaxdigits.overrides import apply_overrides
from flaxdigits.patterns import expand_user
from flaxdigits.studies.seeds import checked_seeds

BASE = "base"
EXAMPLE_OVERRIDE = "train.epochs=5"


@accept_old_names(figure="metric", also="extra_metrics")
@dataclasses.dataclass(frozen=True)
class Study:
    """The base and the variants of a study, and how they are compared.

    Attributes:
      experiment: the experiment of the base: its name, or the path of its file, relative to the
        folder of the study file.
      overrides: overrides of the base and all variants, as for `--set`.
      variants: the overrides of each variant by its name.
      grid: the levels of each factor. A factor is either a field with its values, as in
        `{"model.dropout": (0, 0.1)}`, or a name with the overrides of each level, as in
        `{"rate": {"low": (...), "high": (...)}}`. Every combination of levels is a variant. With
        several factors the report also contains their main effects and two-way interactions; see
        `flaxdigits.studies.grid`.
      seeds: the seeds to train each variant with.
      metric: the metric of `result.json` that is compared: `validation_` or `test_` followed by
        `accuracy`, `loss`, `errors` or the key of one of `evaluate.metrics`. Make choices on the
        validation split.
      extra_metrics: further metrics to show in the table, also of the training split.

    Raises:
      FlaxdigitsError: naming the first invalid field.
    """

    experiment: str
    overrides: Sequence[str] = ()
    variants: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    grid: Mapping[str, Sequence[Any] | Mapping[str, Sequence[str]]] = dataclasses.field(
        default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    metric: str = "validation_accuracy"
    extra_metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.experiment, str):
            raise _field_error("experiment", "a name, or the path of a file", self.experiment)
        _check_strings("overrides", self.overrides, EXAMPLE_OVERRIDE)
        _check_variants("variants", self.variants)
        if not isinstance(self.grid, Mapping):
            raise _field_error(
                "grid", "values by field, as in {'model.dropout': (0, 0.1)}", self.grid)
        for factor, values in self.grid.items():
            name = f"grid[{factor!r}]"
            if not isinstance(factor, str):
                raise _field_error("grid", "values by the names of fields", factor)
            if isinstance(values, Mapping):
                _check_variants(name, values)
            elif not isinstance(values, list | tuple | range):
                raise _field_error(name, "several values, as in (0, 0.1)", values)
            if not values:
                raise _field_error(name, "at least one value", values)
        checked_seeds(self.seeds)
        if not isinstance(self.metric, str) or not re.fullmatch(
                r"(validation|test)_\w+", self.metric):
            raise _field_error(
                "metric", "a metric of the validation or test split, such as validation_accuracy",
                self.metric)
        _check_strings("extra_metrics", self.extra_metrics, "test_accuracy")
        for metric in self.extra_metrics:
            if not re.fullmatch(r"(train|validation|test)_\w+", metric):
                raise _field_error(
                    "extra_metrics", "metrics of a split, such as test_accuracy", metric)

    @functools.cached_property
    def recipe(self) -> ExperimentConfig:
        """The config of the experiment. Its file is executed only once."""
        return load_experiment(self.experiment)


def _check_variants(field: str, variants: Any) -> None:
    """Raises FlaxdigitsError if the value is not a mapping from names to overrides."""
    if not isinstance(variants, Mapping):
        raise _field_error(
            field, "overrides by name, as in {'long': ('train.epochs=5',)}", variants)
    for name, changes in variants.items():
        if not isinstance(name, str):
            raise _field_error(field, "overrides by name, and names must be strings", name)
        _check_strings(f"{field}[{name!r}]", changes, EXAMPLE_OVERRIDE)


def _check_strings(field: str, strings: Any, example: str) -> None:
    """Raises FlaxdigitsError if the value is not a list or tuple of strings."""
    if not isinstance(strings, list | tuple) or not all(
            isinstance(string, str) for string in strings):
        raise _field_error(field, f"a list of strings, as in ({example!r},)", strings)


def _field_error(field: str, expected: str, value: Any) -> FlaxdigitsError:
    return FlaxdigitsError(f"{field} must be {expected}, got {value!r}")


def load_study(name_or_path: str) -> Study:
    """Loads a study.

    Args:
      name_or_path: the name of a built-in study, or the path of a study file, ending in `.py`.

    Raises:
      FlaxdigitsError: if there is no such study, or its file does not return a `Study`.
    """
    path = find(name_or_path, "ablation", ABLATIONS)
    study = load_and_call(path, "get_study", Study)
    if not study.experiment.endswith(".py"):
        return study
    experiment = path.parent / expand_user(study.experiment)
    return dataclasses.replace(study, experiment=str(experiment))


def variants_of(study: Study, overrides: Sequence[str] = ()) -> dict[str, ExperimentConfig]:
    """Returns the configs of a study by the names of the variants, the base first.

    Args:
      study: the study.
      overrides: further overrides of the base and all variants, such as those of `--set`.

    Raises:
      FlaxdigitsError: naming the variant whose config is not valid, or is the same as the base or
        another variant.
    """
    base = apply_overrides(study.recipe, [*study.overrides, *overrides])
    if base.seed != study.recipe.seed:
        raise FlaxdigitsError(f"{study.experiment} with seed={base.seed}: a study trains every "
                              "variant with several seeds: set them in the field or argument seeds")
    _check_metrics(study, base)
    configs = {BASE: base}
    for name, changes in [
            *study.variants.items(),
            *((", ".join(levels), changes) for levels, changes in combinations(study.grid))]:
        try:
            config = apply_overrides(base, changes)
            build_model(config.model, num_classes=1)
            _check_metrics(study, config)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"variant {name!r}: {error}") from error
        if config.seed != base.seed:
            raise FlaxdigitsError(f"variant {name!r} changes seed, but every variant is trained "
                                  "with the same seeds: set them in the field or argument seeds")
        if config == base and name in study.variants:
            raise FlaxdigitsError(f"variant {name!r} does not differ from the base, which also has "
                                  f"{', '.join(changes) or 'the same fields'}: remove or change "
                                  "the variant")
        if config == base:  # the base as one of the combinations of the grid
            continue
        if folder_name(name) in map(folder_name, configs):
            raise FlaxdigitsError(
                f"variant {name!r} has the same folder name as another variant, "
                f"{folder_name(name)!r}: rename one of the variants")
        if folder_name(name).startswith("study."):  # reserved for the files of the table
            raise FlaxdigitsError(f"variant {name!r}: names that start with study. are reserved: "
                                  "rename the variant")
        for other, other_config in configs.items():
            if config == other_config:
                raise FlaxdigitsError(f"variant {name!r} has the same config as {other!r}: remove "
                                      "one of the variants")
        configs[name] = config
    return configs


def _check_metrics(study: Study, config: ExperimentConfig) -> None:
    """Raises FlaxdigitsError if a run of this config does not compute a metric of the study."""
    known = formats(config.evaluate.metrics)
    for field, names in (("metric", [study.metric]), ("extra_metrics", study.extra_metrics)):
        for name in names:
            if name.partition("_")[2] not in known:
                raise _field_error(
                    field, "a name such as test_accuracy: a split followed by one of "
                    f"{', '.join(known)} (evaluate.metrics adds more)", name)


def folder_name(variant: str) -> str:
    """Returns the folder name of a variant, which has no characters that a shell interprets."""
    return re.sub(r"[^\w.+-]+", "_", variant).strip("._-") or "_"


def same_images(config: ExperimentConfig, other: ExperimentConfig) -> bool:
    """Returns whether two configs are evaluated on the same images."""
    def images(config: ExperimentConfig) -> list[Any]:
        data = to_dict(config.data)
        return [data[name] for name in
                ("dataset", "folder", "image_size", "split", "fold", "split_seed")]

    return images(config) == images(other)


def seed_workdir(workdir: Path, variant: str) -> Path:
    """Returns the folder that contains the seeds of a variant.

    The folder of a study that was begun with an earlier version keeps its name.
    """
    folder = workdir / folder_name(variant)
    earlier = workdir / (re.sub(r"[^\w.=,+-]+", "_", variant).strip("._") or "_")
    return earlier if earlier.is_dir() and not folder.exists() else folder


def combinations(
    grid: Mapping[str, Sequence[Any] | Mapping[str, Sequence[str]]]
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yields the levels and the overrides of every combination of a grid.

    A level that several factors have, such as `off`, is preceded by its factor, as in `EMA=off`.

    Args:
      grid: see `Study`.
    """
    counts = Counter(
        name for values in grid.values() if isinstance(values, Mapping) for name in values)

    def levels(factor: str) -> list[tuple[str, list[str]]]:
        values = grid[factor]
        if isinstance(values, Mapping):
            return [(f"{factor}={name}" if counts[name] > 1 else name, list(changes))
                    for name, changes in values.items()]
        return [(f"{factor.rpartition('.')[2]}={_format(value)}", [f"{factor}={_format(value)}"])
                for value in values]

    if grid:
        for combination in itertools.product(*map(levels, grid)):
            yield (tuple(name for name, _ in combination),
                   [change for _, changes in combination for change in changes])


def _format(value: Any) -> str:
    """Formats a value as `--set` expects it."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
