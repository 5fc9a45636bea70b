"""The architectures by name; `register` adds one of your own."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn

from flaxdigits.config import ModelConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models.architecture import Architecture
from flaxdigits.models.chinese_cnn import ChineseCnn
from flaxdigits.models.dense_cnn import DenseCnn
from flaxdigits.models.kaggle_cnn import KaggleCnn
from flaxdigits.models.mnist_cnn import MnistCnn
from flaxdigits.models.mse_cnn import MseCnn

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "chinese_cnn": ChineseCnn,
    "dense_cnn": DenseCnn,
    "kaggle_cnn": KaggleCnn,
    "mnist_cnn": MnistCnn,
    "mse_cnn": MseCnn,
}


def register(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """A decorator that makes a linen module an architecture for `ModelConfig(name=...)`.

    The module is called as `module(images, training)` (see `flaxdigits.models.layers.Training`)
    and has a field for each of its ModelConfig's, beside `num_classes`.
    """
    def add(architecture: type[nn.Module]) -> type[nn.Module]:
        ARCHITECTURES[name] = architecture
        return architecture

    return add


def build_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """The linen module that the config describes.

    Raises:
      FlaxdigitsError: if the name is not registered or the numbers do not fit the architecture.
    """
    if config.name not in ARCHITECTURES:
        raise FlaxdigitsError(
            f"model.name must be one of {', '.join(sorted(ARCHITECTURES))}, got {config.name!r}; "
            "an architecture of your own is registered by its experiment file: name that file "
            "with --experiment")
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    del fields["name"]
    model = ARCHITECTURES[config.name](num_classes=num_classes, **fields)
    if isinstance(model, Architecture):
        _check_lengths(model)
    return model


def _check_lengths(model: Architecture) -> None:
    places = model.dropout_places()
    if len(model.dropout) not in (0, places):
        raise FlaxdigitsError(
            f"model.dropout must be empty or have {places} rates (one for each place of "
            f"{type(model).__name__}), got {len(model.dropout)}")
    if model.convolutions is not None and len(model.filters) != model.convolutions:
        raise FlaxdigitsError(
            f"model.filters must have {model.convolutions} numbers for {type(model).__name__}, "
            f"got {len(model.filters)}")
