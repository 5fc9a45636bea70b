"""The configuration of an experiment: frozen dataclasses and nothing else, without JAX.

An experiment file returns an `ExperimentConfig`; `flaxdigits.overrides` changes single fields by
name and checks types and ranges; `to_dict` and `from_dict` carry it through JSON.
"""

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal

from flaxdigits.errors import LONGEST_QUOTE, FlaxdigitsError, quoted
from flaxdigits.field_types import check


def _number(
    default: Any, at_least: float | None = None, above: float | None = None,
    at_most: float | None = None, below: float | None = None,
) -> Any:
    """A dataclass field whose value, or every element of it, must lie within the given bounds."""
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    return dataclasses.field(default=default, metadata={"bounds": bounds})

def _count(default: Any) -> Any:
    """A field of counts or sizes, from 1 to what the device's int32 holds."""
    return _number(default, at_least=1, below=2**31)


# The splits of each data set; `official` of one's own data needs a test part.
SPLITS = {
    "mnist": ("official", "holdout", "kaggle"),
    "chinese_mnist": ("random", "writers"),
    "idx_files": ("official", "holdout", "random"),
    "image_folder": ("official", "holdout", "random"),
}


# The constants that each optimizer has; the other fields of OptimizerConfig are for all.
OPTIMIZER_CONSTANTS = {
    "adam": ("beta1", "beta2", "epsilon"),
    "sgd": ("momentum",),
    "rmsprop": ("momentum", "rho", "epsilon"),
    "adadelta": ("rho", "epsilon"),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What an architecture leaves open. Subclass it to give an architecture of your own more."""

    name: str  # as registered in flaxdigits.models
    filters: tuple[int, ...] = _count(())  # of each convolution
    dense: tuple[int, ...] = _count(())  # units of each hidden dense layer
    dropout: tuple[float, ...] = _number((), at_least=0, below=1)  # rate at each place
    batch_norm: bool = False  # between every convolution and its activation


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random affine changes of the training images, drawn for every example and step.

    Bilinear, and beyond the border the nearest pixel; all zero is none.
    """

    rotation: float = _number(0.0, at_least=0, at_most=180)  # up to, in degrees, both ways
    zoom: float = _number(0.0, at_least=0, below=1)  # 0.1: 0.9 to 1.1, x and y drawn separately
    shift: float = _number(0.0, at_least=0, at_most=1)  # up to, as a fraction of the size


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which examples, how they are split, and what is done to them before the network."""

    dataset: Literal["mnist", "chinese_mnist", "idx_files", "image_folder"] = "mnist"
    split: Literal["official", "holdout", "kaggle", "random", "writers"] = "official"
    fold: int = _number(0, at_least=0, at_most=9)  # of the `writers` split
    split_seed: int = _number(0, at_least=0, below=2**32)  # of the seeded splits
    folder: str | None = None  # of data of your own: idx_files or image_folder
    image_size: int | None = _number(None, at_least=4, at_most=4096)  # of image_folder: square
    limit: int | None = _count(None)  # only the first examples of the training split
    preprocessing: Literal["unit", "column_norm", "raw"] = "unit"
    augmentation: Augmentation = Augmentation()


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optax optimizer and its schedule; constants that it lacks keep their defaults."""

    name: Literal["adam", "sgd", "rmsprop", "adadelta"] = "adam"
    learning_rate: float = _number(1e-3, above=0)
    schedule: Literal["constant", "cosine", "onecycle", "inverse_time"] = "constant"
    warmup_steps: int = _number(0, at_least=0, below=2**31)  # linear from zero, before the schedule
    decay_rate: float = _number(0.0, at_least=0)  # inverse_time: rate / (1 + decay_rate * step)
    momentum: float = _number(0.0, at_least=0, below=1)
    beta1: float = _number(0.9, at_least=0, below=1)
    beta2: float = _number(0.999, at_least=0, below=1)
    rho: float = _number(0.9, at_least=0, below=1)
    epsilon: float = _number(1e-7, above=0)  # Keras's default
    weight_decay: float = _number(0.0, at_least=0)  # decoupled, kernels only
    clip_norm: float | None = _number(None, above=0)  # largest global norm of the gradient


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, in which batches, on which loss, and how it is spread over devices."""

    batch_size: int = _count(32)  # over all devices
    epochs: int = _count(1)
    steps: int | None = _count(None)  # instead of epochs
    stop_after: int | None = _count(None)  # pause at this step, schedule left whole
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    label_smoothing: float = _number(0.0, at_least=0, below=1)
    ema_decay: float | None = _number(None, above=0, below=1)  # evaluate averaged weights
    init_from: str | None = None  # a run folder whose last weights are the first of this run
    log_every: int = _count(100)  # steps between rows of metrics.jsonl
    parallel: Literal["jit", "pmap"] = "jit"
    together: int | None = _count(None)  # of many seeds, how many at once; None: by the device
    # fp32: exact products; tf32, bf16: faster on GPUs and TPUs, parameters stay float32; on a CPU
    # tf32 is fp32, and bf16 rounds as it does elsewhere and is not faster
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    deterministic: bool = False  # on a GPU: slower kernels, the same bits every time


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How the splits are scored."""

    batch_size: int | None = _count(None)  # None: 32 on a CPU, 1,000 elsewhere
    every_steps: int | None = _count(None)  # None: at the end of every epoch
    # None: that of training; another one shows what such a mistake costs
    preprocessing: Literal["unit", "column_norm", "raw"] | None = None


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Which states are kept, and which one the result is about."""

    every_steps: int | None = _count(None)  # None: at the end of every epoch
    keep: int | None = _count(3)  # the newest ones, beside the best; None: all
    report: Literal["last", "best"] = "last"  # best: by validation accuracy


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides a run's result, apart from the data's own bytes."""

    experiment: str
    model: ModelConfig
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    seed: int = _number(0, at_least=0, below=2**32)


def foreign_constants(optimizer: OptimizerConfig) -> dict[str, Any]:
    """Returns the defaults of the constants that only other optimizers have, by field name."""
    own = OPTIMIZER_CONSTANTS[optimizer.name]
    every = {name for names in OPTIMIZER_CONSTANTS.values() for name in names}
    return {field.name: field.default for field in dataclasses.fields(optimizer)
            if field.name in every.difference(own)}


def join(path: str, name: str) -> str:
    """A field's dotted name."""
    return f"{path}.{name}" if path else name


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass as nested dictionaries of JSON values; tuples become lists."""
    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else value

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
    """The inverse of `to_dict`; raises FlaxdigitsError naming the field that does not fit.

    Args:
      values: as `to_dict` gives them, from JSON.
      model_config: the class of `model`, if it is one of the user's own.
    """
    return _build(ExperimentConfig, values, "", {ModelConfig: model_config})


def _build(cls: type, values: Any, path: str, own: dict[type, type]) -> Any:
    if not isinstance(values, dict):
        raise FlaxdigitsError(
            f"config: {path or 'the whole'} must be an object, got {quoted(values)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise FlaxdigitsError(f"config: unknown field {join(path, name)[:LONGEST_QUOTE]}")
    made = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            made[name] = _build(own.get(hints[name], hints[name]), value, join(path, name), own)
        else:
            made[name] = check(value, hints[name], fields[name], join(path, name))
    try:
        return cls(**made)
    except TypeError as error:
        raise FlaxdigitsError(f"config: {path or 'the whole'} lacks a field: {error}") from error


def validate(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the config with every field's type and range checked, and their combinations.

    Lists become tuples, and whole numbers floats where these are meant.

    Raises:
      FlaxdigitsError: naming the first field that is wrong.
    """
    def walk(node: Any, path: str) -> Any:
        hints = typing.get_type_hints(type(node))
        checked = {}
        for field in dataclasses.fields(node):
            value, full = getattr(node, field.name), join(path, field.name)
            is_group = dataclasses.is_dataclass(value) and not isinstance(value, type)
            new = walk(value, full) if is_group else check(
                value, hints[field.name], field, full)
            if field.init:
                checked[field.name] = new
        return dataclasses.replace(node, **checked)

    if not isinstance(config, ExperimentConfig):
        raise FlaxdigitsError("the config must be an ExperimentConfig, such as "
                              f"flaxdigits.experiment('mse_cnn') gives, got {config!r}")
    config = walk(config, "")
    if not re.fullmatch(r"[^/\\\s.][^/\\]*", config.experiment):
        raise FlaxdigitsError("experiment must be a name, which runs/<experiment> is made of, got "
                              f"{config.experiment!r}")
    optimizer, data = config.optimizer, config.data
    for name, default in foreign_constants(optimizer).items():
        if getattr(optimizer, name) != default:
            raise FlaxdigitsError(
                f"optimizer.{name}={getattr(optimizer, name)}: optimizer.name={optimizer.name} has "
                f"no {name}, but {', '.join(OPTIMIZER_CONSTANTS[optimizer.name])}")
    if optimizer.schedule == "onecycle" and optimizer.warmup_steps:
        raise FlaxdigitsError(
            "optimizer.warmup_steps must be 0 with optimizer.schedule=onecycle, which warms up")
    if optimizer.decay_rate and optimizer.schedule != "inverse_time":
        raise FlaxdigitsError(
            "optimizer.decay_rate needs optimizer.schedule=inverse_time, "
            f"got {optimizer.schedule}")
    if config.train.loss == "mse" and config.train.label_smoothing:
        raise FlaxdigitsError("train.label_smoothing needs train.loss=cross_entropy, got mse")
    if config.checkpoint.report == "best" and data.split == "official":
        raise FlaxdigitsError(
            f"checkpoint.report=best needs a validation split, and data.split={data.split} has "
            "none: choosing on the test split is not offered; use another split, or report=last")
    if config.train.steps is not None and optimizer.warmup_steps >= config.train.steps:
        raise FlaxdigitsError(
            f"optimizer.warmup_steps must be below train.steps={config.train.steps}, "
            f"got {optimizer.warmup_steps}")
    if data.split not in SPLITS[data.dataset]:
        raise FlaxdigitsError(
            f"data.split={data.split}: {data.dataset} has no such split; use one of "
            + ", ".join(SPLITS[data.dataset]))
    if data.fold and data.split != "writers":
        raise FlaxdigitsError(f"data.fold={data.fold} needs data.split=writers, got {data.split}")
    own = data.dataset in ("idx_files", "image_folder")
    if own and not data.folder:
        raise FlaxdigitsError(f"data.folder must name a folder with data.dataset={data.dataset}")
    if data.folder and not own:
        raise FlaxdigitsError(
            f"data.folder needs data.dataset=idx_files or image_folder, got {data.dataset}")
    if data.image_size is not None and data.dataset != "image_folder":
        raise FlaxdigitsError(
            f"data.image_size={data.image_size} needs data.dataset=image_folder, got "
            f"{data.dataset}, whose images keep their size")
    return config
