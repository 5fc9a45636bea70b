"""The configuration of an experiment: frozen dataclasses and nothing else, without JAX.

An experiment file returns an `ExperimentConfig`. Its sections hold numbers and names, and
components (`flaxdigits.components`): the optimizer with its schedule, the loss, the augmentations
and the metrics. `flaxdigits.overrides` changes single fields by name and checks types and ranges;
`to_dict` and `from_dict` convert a config to JSON values and back.
"""

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal

from flaxdigits.augmentations import Augmentation
from flaxdigits.components import Component, article, bounded, count
from flaxdigits.datasets import datasets_with, find_dataset
from flaxdigits.errors import LONGEST_QUOTE, FlaxdigitsError, quoted
from flaxdigits.field_types import check
from flaxdigits.losses import CrossEntropy, Loss
from flaxdigits.metrics import Metric, check_keys
from flaxdigits.objectives import FastAdversarial, Objective, Supervised
from flaxdigits.optimizers import Adam, Optimizer
from flaxdigits.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What an architecture leaves open. Subclass it to give an architecture of your own more."""

    name: str  # as registered in flaxdigits.models
    filters: tuple[int, ...] = count(())  # of each convolution
    dense: tuple[int, ...] = count(())  # units of each hidden dense layer
    dropout: tuple[float, ...] = bounded((), at_least=0, below=1)  # rate at each place
    batch_norm: bool = False  # between every convolution and its activation


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which examples, how they are split, and how they are preprocessed; see docs/data.md."""

    dataset: str = "mnist"  # as registered in flaxdigits.datasets, or tfds:<builder>
    split: Literal["official", "holdout", "kaggle", "random", "kfold", "writers",
                   "indices"] = "official"
    fold: int = bounded(0, at_least=0, below=1000)  # the tested one, of the kfold and writers split
    folds: int = bounded(10, at_least=3, at_most=1000)  # of the kfold and writers split
    split_seed: int = bounded(0, at_least=0, below=2**32)  # of the seeded splits
    stratify: bool = False  # holdout, kaggle and random: every part has each class's share
    indices: str | None = None  # the file of the indices split
    folder: str | None = None  # of custom data: idx_files, image_folder; of npz the file
    image_size: int | None = bounded(None, at_least=4, at_most=4096)  # of image_folder: square
    limit: int | None = count(None)  # only the first examples of the training split
    preprocessing: Literal["unit", "column_norm", "raw"] = "unit"
    augmentation: tuple[Augmentation, ...] = ()  # applied in order


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, in which batches, on which loss, and how it is spread over devices."""

    batch_size: int = count(32)  # over all devices
    epochs: int = count(1)
    steps: int | None = count(None)  # instead of epochs
    stop_after: int | None = count(None)  # stop after this step; the schedule spans the full run
    loss: Loss = CrossEntropy()
    objective: Objective = Supervised()
    # Coefficient of the sum of squared kernels in the loss; not part of the logged loss.
    l2_penalty: float = bounded(0.0, at_least=0)
    ema_decay: float | None = bounded(None, above=0, below=1)  # evaluate averaged weights
    init_from: str | None = None  # a run folder whose last weights are the first of this run
    log_every: int = count(100)  # steps between rows of metrics.jsonl
    parallel: Literal["jit", "pmap"] = "jit"
    together: int | None = count(None)  # of many seeds, how many at once; None: by the device
    # fp32: exact products; tf32, bf16: faster on GPUs and TPUs, parameters stay float32; on a CPU
    # tf32 is fp32, and bf16 rounds as it does elsewhere and is not faster
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    deterministic: bool = False  # on a GPU: slower kernels, the same bits every time


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How the splits are scored."""

    batch_size: int | None = count(None)  # None: 32 on a CPU, 1,000 elsewhere
    every_steps: int | None = count(None)  # None: at the end of every epoch
    # None: that of training; another one shows what such a mistake costs
    preprocessing: Literal["unit", "column_norm", "raw"] | None = None
    metrics: tuple[Metric, ...] = ()  # beside accuracy, loss and errors


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Which states are kept, and which one the result is about."""

    every_steps: int | None = count(None)  # None: at the end of every epoch
    keep: int | None = count(3)  # the newest ones, beside the best; None: all
    report: Literal["last", "best"] = "last"  # best: by validation accuracy


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides a run's result, apart from the data's own bytes."""

    experiment: str
    model: ModelConfig
    data: DataConfig = DataConfig()
    optimizer: Optimizer = Adam()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    seed: int = bounded(0, at_least=0, below=2**32)


def join(path: str, name: str) -> str:
    """A field's dotted name."""
    return f"{path}.{name}" if path else name


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a dataclass as nested dictionaries of JSON values.

    Tuples become lists, and a component begins with its `name`.
    """
    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"name": value.name, **fields} if isinstance(value, Component) else fields
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(config)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def from_dict(
    values: dict[str, Any], model_config: type[ModelConfig] = ModelConfig
) -> ExperimentConfig:
    """The inverse of `to_dict`; also reads what earlier versions wrote.

    Args:
      values: as `to_dict` returns them, from JSON.
      model_config: the class of `model`, if it is one of the user's own.

    Raises:
      FlaxdigitsError: naming the field that does not fit.
    """
    if not isinstance(values, dict):
        raise FlaxdigitsError(f"config: the whole must be an object, got {quoted(values)}")
    return _build(ExperimentConfig, upgrade(values), "", {ModelConfig: model_config})


def _build(cls: type, values: Any, path: str, own: dict[type, type]) -> Any:
    """Returns the dataclass whose fields these are, each of them built and checked."""
    if not isinstance(values, dict):
        raise FlaxdigitsError(
            f"config: {path or 'the whole'} must be an object, got {quoted(values)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise FlaxdigitsError(f"config: unknown field {join(path, name)[:LONGEST_QUOTE]}")
    built = {name: _build_field(value, hints[name], fields[name], join(path, name), own)
             for name, value in values.items()}
    try:
        return cls(**built)
    except TypeError as error:
        raise FlaxdigitsError(f"config: {path or 'the whole'} lacks a field: {error}") from error


def _build_field(
    value: Any, hint: Any, field: dataclasses.Field, path: str, own: dict[type, type]
) -> Any:
    if is_component(hint):
        return _build_component(hint, value, path, own)
    if is_component_list(hint):
        if not isinstance(value, list):
            raise FlaxdigitsError(f"{path} must be a list of components, got {quoted(value)}")
        kind = typing.get_args(hint)[0]
        return tuple(_build_component(kind, item, join(path, str(place)), own)
                     for place, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _build(own.get(hint, hint), value, path, own)
    return check(value, hint, field, path)


def _build_component(
    kind: type[Component], values: Any, path: str, own: dict[type, type]
) -> Component:
    if not isinstance(values, dict):
        raise FlaxdigitsError(f"config: {path} must be an object with a name, got {quoted(values)}")
    cls = kind.find(values.get("name"), f"{path}.name")
    return _build(cls, {name: value for name, value in values.items() if name != "name"}, path, own)


def is_component(hint: Any) -> bool:
    """Returns whether a field of this type holds a component."""
    return isinstance(hint, type) and issubclass(hint, Component)


def is_component_list(hint: Any) -> bool:
    """Returns whether a field of this type holds a tuple of components of one kind."""
    return typing.get_origin(hint) is tuple and is_component(typing.get_args(hint)[0])


# Where the fields of earlier versions are now; overrides take the old names too.
RENAMED = {
    "optimizer.warmup_steps": "optimizer.schedule.warmup_steps",
    "optimizer.decay_rate": "optimizer.schedule.decay_rate",
    "train.label_smoothing": "train.loss.label_smoothing",
    "data.augmentation.rotation": "data.augmentation.affine.rotation",
    "data.augmentation.zoom": "data.augmentation.affine.zoom",
    "data.augmentation.shift": "data.augmentation.affine.shift",
}


# Classes of earlier versions that an experiment file may import.
MOVED = {
    "OptimizerConfig": "a class for each optimizer, such as flaxdigits.optimizers.Adam, with a "
                       "schedule such as flaxdigits.schedules.Cosine",
}


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config's JSON values in today's form; those of earlier versions are converted.

    Earlier, the fields of all optimizers and schedules were one flat group, of which each used its
    own; those that the chosen one did not use are dropped. What is in no form known stays as it is.
    """
    values = dict(values)
    optimizer, train, data = (values.get(name) for name in ("optimizer", "train", "data"))
    if isinstance(optimizer, dict) and isinstance(optimizer.get("schedule"), str):
        schedule = {"name": optimizer["schedule"], **_known(
            Schedule, optimizer["schedule"], optimizer)}
        values["optimizer"] = {
            "name": optimizer.get("name"),
            **_known(Optimizer, optimizer.get("name"), optimizer), "schedule": schedule}
    if isinstance(train, dict) and isinstance(train.get("loss"), str):
        values["train"] = {name: value for name, value in train.items()
                           if name != "label_smoothing"}
        values["train"]["loss"] = {"name": train["loss"], **_known(Loss, train["loss"], train)}
    if isinstance(data, dict) and isinstance(data.get("augmentation"), dict):
        affine = data["augmentation"]
        values["data"] = data | {
            "augmentation": [{"name": "affine", **affine}] if any(affine.values()) else []}
    return values


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config's JSON values in today's form, with the fields that were added since.

    The fields of `model`, whose class may be the user's own, stay as they are. A config that is of
    no form known is only upgraded.
    """
    upgraded = upgrade(values)
    try:
        known = _build(ExperimentConfig, upgraded | {"model": {"name": ""}}, "", {})
    except FlaxdigitsError:
        return upgraded
    return to_dict(known) | {name: upgraded[name] for name in ("model",) if name in upgraded}


def _known(kind: type[Component], name: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of the values that are fields of a component."""
    cls = kind.registered.get(name) if isinstance(name, str) else None
    fields = () if cls is None else [field.name for field in dataclasses.fields(cls)]
    return {field: values[field] for field in fields if field in values}


def validate(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the config with every field's type and range checked, and their combinations.

    Lists become tuples, and integers become floats in float fields.

    Raises:
      FlaxdigitsError: naming the first field that is wrong.
    """
    if not isinstance(config, ExperimentConfig):
        raise FlaxdigitsError("the config must be an ExperimentConfig, such as "
                              f"flaxdigits.experiment('mse_cnn') gives, got {config!r}")
    config = _checked(config, "")
    if not re.fullmatch(r"[^/\\\s.][^/\\]*", config.experiment):
        raise FlaxdigitsError("experiment must be a name, which runs/<experiment> is made of, got "
                              f"{config.experiment!r}")
    _check_combinations(config)
    return config


def _checked(node: Any, path: str) -> Any:
    """Returns a section or component with every field checked."""
    hints = typing.get_type_hints(type(node))
    values = {}
    for field in dataclasses.fields(node):
        value = _checked_field(
            getattr(node, field.name), hints[field.name], field, join(path, field.name))
        if field.init:
            values[field.name] = value
    node = dataclasses.replace(node, **values)
    if isinstance(node, Component):
        node.check(path)
    return node


def _checked_field(value: Any, hint: Any, field: dataclasses.Field, path: str) -> Any:
    if is_component(hint):
        return _checked_component(value, hint, path)
    if is_component_list(hint):
        if not isinstance(value, list | tuple):
            raise FlaxdigitsError(f"{path} must be a tuple of components, got {quoted(value)}")
        kind = typing.get_args(hint)[0]
        return tuple(_checked_component(item, kind, join(path, str(place)))
                     for place, item in enumerate(value))
    is_section = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return _checked(value, path) if is_section else check(value, hint, field, path)


def _checked_component(value: Any, kind: type[Component], path: str) -> Component:
    if not isinstance(value, kind):
        raise FlaxdigitsError(
            f"{path} must be {article(kind.kind)} {kind.kind} (an object of a subclass of "
            f"{kind.__module__}.{kind.__name__}), got {quoted(value)}")
    if "name" not in vars(type(value)):
        raise FlaxdigitsError(
            f"{path}: {type(value).__name__} is not registered: decorate it with "
            "@flaxdigits.components.register('its_name')")
    return _checked(value, path)


def _check_combinations(config: ExperimentConfig) -> None:
    """Raises FlaxdigitsError if fields do not fit one another."""
    data = config.data
    if config.checkpoint.report == "best" and data.split == "official":
        raise FlaxdigitsError(
            f"checkpoint.report=best needs a validation split, and data.split={data.split} has "
            "none: choosing on the test split is not offered; use another split, or report=last")
    warmup_steps = getattr(config.optimizer.schedule, "warmup_steps", 0)
    if config.train.steps is not None and warmup_steps >= config.train.steps:
        raise FlaxdigitsError(
            f"optimizer.schedule.warmup_steps must be below train.steps={config.train.steps}, "
            f"got {warmup_steps}")
    check_keys(config.evaluate.metrics)
    objective = config.train.objective
    if isinstance(objective, FastAdversarial) and data.preprocessing != "unit":
        raise FlaxdigitsError("train.objective=fast_adversarial needs data.preprocessing=unit, got "
                              f"{data.preprocessing}")
    _check_data(data)


FOLDED = ("kfold", "writers")  # the splits that have folds
STRATIFIED = ("holdout", "kaggle", "random", "kfold")  # kfold always is


def _check_data(data: DataConfig) -> None:
    """Raises FlaxdigitsError if fields of `data` do not fit the data set or the split."""
    entry = find_dataset(data.dataset)
    if data.split not in entry.splits:
        raise FlaxdigitsError(
            f"data.split={data.split}: {data.dataset} has no such split; use one of "
            + ", ".join(entry.splits))
    if data.fold >= data.folds:
        raise FlaxdigitsError(f"data.fold must be at most {data.folds - 1}, got {data.fold}")
    for name, unused in (("fold", 0), ("folds", 10)):
        if getattr(data, name) != unused and data.split not in FOLDED:
            raise FlaxdigitsError(f"data.{name}={getattr(data, name)} needs data.split=writers or "
                                  f"kfold, got {data.split}")
    if data.stratify and data.split not in STRATIFIED:
        raise FlaxdigitsError(
            f"data.stratify=true needs data.split={', '.join(STRATIFIED[:-1])} or "
            f"{STRATIFIED[-1]}, got {data.split}")
    if data.split == "indices" and not data.indices:
        raise FlaxdigitsError(
            "data.indices must name a file with data.split=indices: JSON or npz, with the indices "
            "of the examples in train, validation and test")
    if data.indices and data.split != "indices":
        raise FlaxdigitsError(f"data.indices needs data.split=indices, got {data.split}")
    for name in entry.required:
        if not getattr(data, name):
            what = "an .npz file" if data.dataset == "npz" else "a folder"
            raise FlaxdigitsError(
                f"data.{name} must name {what} with data.dataset={data.dataset}")
    for name in ("folder", "image_size"):
        value = getattr(data, name)
        if value is not None and name not in entry.required + entry.optional:
            raise FlaxdigitsError(
                f"data.{name}={value} needs data.dataset={' or '.join(datasets_with(name))}, got "
                f"{data.dataset}")


def __getattr__(name: str) -> Any:
    if name in MOVED:
        raise FlaxdigitsError(f"flaxdigits.config.{name} is now {MOVED[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
