"""The configuration of an experiment: frozen dataclasses that do not depend on JAX.

An experiment file returns an `ExperimentConfig`. Its sections contain numbers, strings and
components (`flaxdigits.components`), such as the optimizer with its schedule, the loss and the
metrics. `flaxdigits.overrides` sets single fields by name and checks types and ranges; `to_dict`
and `from_dict` convert a config to JSON values and back.
"""

import contextlib
import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeGuard

from flaxdigits.augmentations import Augmentation
from flaxdigits.components import Component, article, bounded, count
from flaxdigits.datasets import datasets_with, find_dataset
from flaxdigits.errors import MAX_QUOTE_LENGTH, FlaxdigitsError, quoted
from flaxdigits.field_types import check
from flaxdigits.losses import CrossEntropy, Loss
from flaxdigits.metrics import Metric, check_keys
from flaxdigits.models import CnnConfig, Model
from flaxdigits.objectives import FastAdversarial, Objective, Supervised
from flaxdigits.old_names import accept_old_names
from flaxdigits.optimizers import Adam, Optimizer
from flaxdigits.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set, its split, and the transformations of its images; see docs/data.md.

    Attributes:
      dataset: a data set that is registered in flaxdigits.datasets, or tfds:<builder>.
      split: how the examples are divided into train, validation and test.
      fold: the tested fold of the kfold and writers splits.
      folds: the number of folds of the kfold and writers splits.
      split_seed: the seed of the splits that are random.
      stratify: whether each part of holdout, kaggle, random and fractions has equal shares of the
        classes.
      validation_fraction: the share of all examples that the fractions split uses for validation.
      test_fraction: the share of all examples that the fractions split uses for the test.
      indices: the file of the indices split.
      folder: the folder that idx_files or image_folder reads, or the file that npz reads.
      image_size: the height and width to which image_folder resizes; none: the size of the images.
      limit: use only this many examples, the first ones, of the training split.
      preprocessing: unit scales the pixels to [0, 1], column_norm divides each column of pixels by
        its norm, and raw leaves them unchanged.
      augmentation: random changes of the training images, applied in order.
    """

    dataset: str = "mnist"
    split: Literal["official", "holdout", "kaggle", "random", "fractions", "kfold",
                   "writers", "indices"] = "official"
    fold: int = bounded(0, at_least=0, below=1000)
    folds: int = bounded(10, at_least=3, at_most=1000)
    split_seed: int = bounded(0, at_least=0, below=2**32)
    stratify: bool = False
    validation_fraction: float = bounded(0.1, at_least=0, below=1)
    test_fraction: float = bounded(0.1, at_least=0, below=1)
    indices: str | None = None
    folder: str | None = None
    image_size: int | None = bounded(None, at_least=4, at_most=4096)
    limit: int | None = count(None)
    preprocessing: Literal["unit", "column_norm", "raw"] = "unit"
    augmentation: tuple[Augmentation, ...] = ()


@accept_old_names(together="seeds_per_call")
@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The length of training, its batches, loss and objective, and the use of devices.

    Attributes:
      batch_size: the number of examples in a batch, over all devices.
      epochs: the number of passes over the training examples.
      steps: the number of train steps; none: as many as `epochs` takes.
      stop_after: the step after which the run is paused; the schedule is that of the whole run.
      loss: the loss of an example.
      objective: what a train step minimizes.
      l2_penalty: the coefficient of the sum of squared kernels in the loss; not part of the logged
        loss.
      ema_decay: the decay of an exponential moving average of the weights, which is evaluated in
        place of the weights; none: no average is computed.
      init_from: the run whose weights are the initial weights, such as runs/x for its last
        checkpoint, or runs/x@best.
      freeze: patterns of the layers whose parameters are not trained, such as Conv_*; see
        docs/weights.md.
      log_every: the number of steps between rows of metrics.jsonl.
      log_norms: add the norms of gradient, update and parameters to these rows.
      parallel: how a batch is divided over several devices.
      seeds_per_call: how many seeds one compiled call trains at the same time; none: as many as
        suit the device.
      precision: the precision of matrix products and convolutions. tf32 and bf16 are faster on GPUs
        and TPUs; parameters stay float32. On a CPU tf32 is the same as fp32, and bf16 rounds
        without being faster.
      deterministic: on a GPU, use slower kernels that give bitwise equal results.
    """

    batch_size: int = count(32)
    epochs: int = count(1)
    steps: int | None = count(None)
    stop_after: int | None = count(None)
    loss: Loss = CrossEntropy()
    objective: Objective = Supervised()
    l2_penalty: float = bounded(0.0, at_least=0)
    ema_decay: float | None = bounded(None, above=0, below=1)
    init_from: str | None = None
    freeze: tuple[str, ...] = ()
    log_every: int = count(100)
    log_norms: bool = False
    parallel: Literal["jit", "pmap"] = "jit"
    seeds_per_call: int | None = count(None)
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    deterministic: bool = False


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How the splits are evaluated.

    Attributes:
      batch_size: the number of examples in a batch; none: 32 on a CPU, 1,000 elsewhere.
      every_steps: the number of steps between evaluations; none: at the end of every epoch.
      preprocessing: the preprocessing of the evaluated images, see `data.preprocessing`; none: the
        same as in training. A different value measures the effect of different preprocessing.
      metrics: further metrics, in addition to accuracy, loss and errors.
    """

    batch_size: int | None = count(None)
    every_steps: int | None = count(None)
    preprocessing: Literal["unit", "column_norm", "raw"] | None = None
    metrics: tuple[Metric, ...] = ()


@accept_old_names(report="select")
@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoints are kept, and which one is evaluated at the end of the run.

    Attributes:
      every_steps: the number of steps between checkpoints; none: at the end of every epoch.
      keep: the number of latest checkpoints to keep, in addition to the best; none: all.
      select: the checkpoint whose metrics are in result.json; best: the checkpoint with the highest
        validation accuracy.
    """

    every_steps: int | None = count(None)
    keep: int | None = count(3)
    select: Literal["last", "best"] = "last"


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything that determines the result of a run, except for the data itself.

    Attributes:
      experiment: the name of the experiment; the run folder is runs/<experiment>.
      model: the network.
      data: the data set, its split, and the transformations of its images.
      optimizer: the update of the weights.
      train: the length of training, its batches, loss and objective.
      evaluate: how the splits are evaluated.
      checkpoint: which checkpoints are kept.
      seed: the seed of the initial weights, the order of the examples, dropout and augmentation.
    """

    experiment: str
    model: Model
    data: DataConfig = DataConfig()
    optimizer: Optimizer = Adam()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    seed: int = bounded(0, at_least=0, below=2**32)


def join(path: str, name: str) -> str:
    """Returns the dotted name of a field."""
    return f"{path}.{name}" if path else name


def to_dict(config: Any) -> dict[str, Any]:
    """Converts a dataclass to nested dictionaries of JSON values.

    Tuples become lists. The first key of a component is its `name`.
    """
    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"name": value.name, **fields} if isinstance(value, Component) else fields
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(config)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries into one with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def from_dict(values: Mapping[str, Any]) -> ExperimentConfig:
    """Creates a config from the output of `to_dict` of this or an earlier version.

    Args:
      values: JSON values.

    Raises:
      FlaxdigitsError: if a field is unknown or invalid; the message names it.
    """
    if not isinstance(values, dict):
        raise FlaxdigitsError(f"config: must be an object, got {quoted(values)}")
    return _build(ExperimentConfig, upgrade(values), "")


def _build(cls: type, values: Any, path: str) -> Any:
    """Builds a dataclass from JSON values, and checks every field.

    Args:
      cls: the dataclass.
      values: the JSON values of its fields.
      path: the dotted name of the section, for error messages; empty for the whole config.
    """
    if not isinstance(values, dict):
        raise FlaxdigitsError(f"config: {path} must be an object, got {quoted(values)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise FlaxdigitsError(f"config: unknown field {join(path, name)[:MAX_QUOTE_LENGTH]}")
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise FlaxdigitsError(f"config: missing required field {join(path, name)}")
    return cls(**{name: _build_field(value, hints[name], fields[name], join(path, name))
                  for name, value in values.items() if fields[name].init})


def _build_field(value: Any, hint: Any, field: dataclasses.Field, path: str) -> Any:
    """Builds the value of a field from its JSON value, and checks it."""
    if is_component(hint):
        return _build_component(hint, value, path)
    if is_component_list(hint):
        if not isinstance(value, list):
            raise FlaxdigitsError(
                f"config: {path} must be a list of components, got {quoted(value)}")
        kind = typing.get_args(hint)[0]
        return tuple(_build_component(kind, item, join(path, str(position)))
                     for position, item in enumerate(value))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, path)
    return check(value, hint, field, path)


def _build_component(kind: type[Component], values: Any, path: str) -> Component:
    """Builds a component from a JSON object, whose field `name` selects the class."""
    if not isinstance(values, dict):
        raise FlaxdigitsError(
            f"config: {path} must be an object with a field \"name\", got {quoted(values)}")
    cls = kind.find(values.get("name"), f"{path}.name")
    return _build(cls, {name: value for name, value in values.items() if name != "name"}, path)


def is_component(hint: Any) -> TypeGuard[type[Component]]:
    """Returns whether a field of this type contains a component."""
    return isinstance(hint, type) and issubclass(hint, Component)


def is_component_list(hint: Any) -> bool:
    """Returns whether a field of this type contains a tuple of components of one kind."""
    return typing.get_origin(hint) is tuple and is_component(typing.get_args(hint)[0])


# Fields that have been renamed. Overrides and `config.json` may still use the old names.
RENAMED = {
    "train.together": "train.seeds_per_call",
    "checkpoint.report": "checkpoint.select",
    "optimizer.warmup_steps": "optimizer.schedule.warmup_steps",
    "optimizer.decay_rate": "optimizer.schedule.decay_rate",
    "train.label_smoothing": "train.loss.label_smoothing",
    "data.augmentation.rotation": "data.augmentation.affine.rotation",
    "data.augmentation.zoom": "data.augmentation.affine.zoom",
    "data.augmentation.shift": "data.augmentation.affine.shift",
}


# Classes that have been replaced, but that an experiment file may still import.
MOVED = {
    "OptimizerConfig": "a class for each optimizer, such as flaxdigits.optimizers.Adam, with a "
                       "schedule such as flaxdigits.schedules.Cosine",
}


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the JSON values of a config of an earlier version to the current format.

    In earlier versions the fields of all optimizers and schedules were in one flat group; fields
    that the selected optimizer and schedule do not have are dropped. Values in an unknown format
    are returned unchanged.
    """
    values = dict(values)
    for old, new in RENAMED.items():
        (section, name), (new_section, new_name) = old.rsplit(".", 1), new.rsplit(".", 1)
        fields = values.get(section)
        if section == new_section and isinstance(fields, dict):
            values[section] = {
                new_name if field == name else field: value for field, value in fields.items()}
    optimizer, train, data, model = (
        values.get(name) for name in ("optimizer", "train", "data", "model"))
    if isinstance(model, dict):
        values["model"] = _without_unused(model)
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
    """Upgrades the JSON values of a config and adds missing fields with their defaults.

    A model that is not registered, or has invalid fields, is only upgraded. If the other values are
    not a valid config, all values are only upgraded.
    """
    upgraded = upgrade(values)
    model = upgraded.get("model")
    try:
        # mlp is a placeholder: the model is completed below, because it may not be registered.
        completed = to_dict(_build(ExperimentConfig, upgraded | {"model": {"name": "mlp"}}, ""))
    except FlaxdigitsError:
        return upgraded
    with contextlib.suppress(FlaxdigitsError):
        model = to_dict(_build_component(Model, model, "model"))
    return completed | ({} if model is None else {"model": model})


# In earlier versions one class contained the fields of all models. A stored config has these values
# in the fields that its model does not use.
UNUSED: Mapping[str, Any] = {"filters": (), "dense": (), "dropout": (), "batch_norm": False}


def _without_unused(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a model without the unused fields that earlier versions stored.

    Other fields that the model does not have are kept, so that they are reported as unknown.
    """
    name = model.get("name")
    cls = Model.registered.get(name) if isinstance(name, str) else None
    if cls is None:
        return dict(model)
    fields = {field.name for field in dataclasses.fields(cls)}
    return {field: value for field, value in model.items() if field in fields
            or field not in UNUSED
            or (tuple(value) if isinstance(value, list) else value) != UNUSED[field]}


def _known(kind: type[Component], name: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values that are fields of a component."""
    cls = kind.registered.get(name) if isinstance(name, str) else None
    fields = () if cls is None else [field.name for field in dataclasses.fields(cls)]
    return {field: values[field] for field in fields if field in values}


def validate(config: ExperimentConfig) -> ExperimentConfig:
    """Checks the type and range of every field of a config, and the combinations of fields.

    Returns:
      The config. Lists are converted to tuples, and integers to floats in float fields.

    Raises:
      FlaxdigitsError: if a field is invalid; the message names the first one.
    """
    if not isinstance(config, ExperimentConfig):
        raise FlaxdigitsError("the config must be an ExperimentConfig, such as "
                              f"flaxdigits.experiment('mse_cnn') returns, got {config!r}")
    config = _checked(config, "")
    if not re.fullmatch(r"[^/\\\s.][^/\\]*", config.experiment):
        raise FlaxdigitsError(
            "experiment must be a name that is not empty, contains no slash or backslash, and does "
            "not begin with a dot or a space, since the run folder is runs/<experiment>, got "
            f"{config.experiment!r}")
    _check_combinations(config)
    return config


def _checked(node: Any, path: str) -> Any:
    """Checks every field of a section or component; returns it with the converted values."""
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
    """Checks the value of a field, and returns it converted to the type of the field."""
    if is_component(hint):
        return _checked_component(value, hint, path)
    if is_component_list(hint):
        if not isinstance(value, list | tuple):
            raise FlaxdigitsError(f"{path} must be a tuple of components, got {quoted(value)}")
        kind = typing.get_args(hint)[0]
        return tuple(_checked_component(item, kind, join(path, str(position)))
                     for position, item in enumerate(value))
    is_section = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return _checked(value, path) if is_section else check(value, hint, field, path)


def _checked_component(value: Any, kind: type[Component], path: str) -> Component:
    """Checks a component and its fields, and returns it with converted values."""
    if not isinstance(value, kind):
        raise FlaxdigitsError(
            f"{path} must be {article(kind.kind)} {kind.kind} (an instance of a subclass of "
            f"{kind.__module__}.{kind.__name__}), got {quoted(value)}")
    if "name" not in vars(type(value)):
        raise FlaxdigitsError(
            f"{path}: {type(value).__name__} is not registered: decorate it with "
            "@flaxdigits.components.register('its_name')")
    return _checked(value, path)


def _check_combinations(config: ExperimentConfig) -> None:
    """Raises FlaxdigitsError if the values of two fields are not compatible."""
    data = config.data
    if config.checkpoint.select == "best" and data.split == "official":
        raise FlaxdigitsError(
            f"checkpoint.select=best needs a validation split, and data.split={data.split} has "
            "none: selecting on the test split is not supported; use another split, or select=last")
    if (config.checkpoint.select == "best" and data.split == "fractions"
            and not data.validation_fraction):
        raise FlaxdigitsError(
            "checkpoint.select=best needs a validation split: set data.validation_fraction above "
            "0, or select=last")
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
# The splits that use a field of DataConfig; with any other split it must have its default.
SPLITS_OF_FIELDS = {"fold": ("writers", "kfold"), "folds": ("writers", "kfold"),
                    "validation_fraction": ("fractions",), "test_fraction": ("fractions",)}
# The splits that can be stratified; kfold always is.
STRATIFIED = ("holdout", "kaggle", "random", "fractions", "kfold")


def validate_data(data: DataConfig) -> DataConfig:
    """Checks the fields of `data` as `validate` does, and returns the config.

    Raises:
      FlaxdigitsError: if a field is invalid; the message names the first one.
    """
    data = _checked(data, "data")
    _check_data(data)
    return data


def _check_data(data: DataConfig) -> None:
    """Raises FlaxdigitsError if fields of `data` do not fit the data set or the split."""
    entry = find_dataset(data.dataset)
    if data.split not in entry.splits:
        raise FlaxdigitsError(
            f"data.split={data.split}: {data.dataset} has no such split; use one of "
            + ", ".join(entry.splits))
    if data.fold >= data.folds:
        raise FlaxdigitsError(f"data.fold must be at most {data.folds - 1}, got {data.fold}")
    for name, splits in SPLITS_OF_FIELDS.items():
        if getattr(data, name) != getattr(DataConfig, name) and data.split not in splits:
            raise FlaxdigitsError(f"data.{name}={getattr(data, name)} needs data.split="
                                  f"{' or '.join(splits)}, got {data.split}")
    if data.validation_fraction + data.test_fraction >= 1:
        raise FlaxdigitsError(
            "data.validation_fraction + data.test_fraction must be below 1, so that there are "
            f"training examples, got {data.validation_fraction} + {data.test_fraction}")
    if data.stratify and data.split not in STRATIFIED:
        raise FlaxdigitsError(
            f"data.stratify=true needs data.split={', '.join(STRATIFIED[:-1])} or "
            f"{STRATIFIED[-1]}, got {data.split}")
    if data.split == "indices" and not data.indices:
        raise FlaxdigitsError(
            "data.split=indices needs data.indices: a JSON or npz file with the indices of the "
            "examples in train, validation and test")
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


class _ModelByName:
    """Supports `ModelConfig("dense_cnn", filters=(32,))` in experiment files of earlier versions.

    Earlier versions had one class for the configs of all models.
    """

    def __call__(
        self, name: str, filters: tuple[int, ...] = (), dense: tuple[int, ...] = (),
        dropout: tuple[float, ...] = (), batch_norm: bool = False, **fields: Any,
    ) -> Model:
        """Returns the config of a registered model; fields that are not passed are empty.

        Raises:
          FlaxdigitsError: if there is no such model, or it has no such field.
        """
        cls = Model.find(name, "model.name")
        shared = {"filters": filters, "dense": dense, "dropout": dropout, "batch_norm": batch_norm}
        if not issubclass(cls, CnnConfig):
            shared = {field: value for field, value in shared.items() if value != UNUSED[field]}
        known = [field.name for field in dataclasses.fields(cls)]
        for field in (*shared, *fields):
            if field not in known:
                raise FlaxdigitsError(f"model.{field}: the model {name} has no such field; it has "
                                      f"{', '.join(known) or 'none'}")
        return cls(**shared, **fields)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise FlaxdigitsError(
            "flaxdigits.config.ModelConfig cannot be a base class: declare the fields, with types "
            "and defaults, in the linen module that is decorated with @flaxdigits.models.register, "
            "and use model=<its class>.Config(...)")


ModelConfig: _ModelByName = _ModelByName()


def __getattr__(name: str) -> Any:
    if name in MOVED:
        raise FlaxdigitsError(f"flaxdigits.config.{name} is now {MOVED[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
