"""The architectures by name; `register` adds one of your own."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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

    The module is called as `module(images, training)`: [batch, height, width, channels] float32 to
    logits, [batch, classes]; `training` is None in evaluation, else
    `flaxdigits.models.layers.Training`. Its fields are given what the ModelConfig's of the same
    names hold; `num_classes`, if it has such a field, is how many logits there must be.
    """
    def add(architecture: type[nn.Module]) -> type[nn.Module]:
        ARCHITECTURES[name] = architecture
        return architecture

    return add


def build_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """The linen module that the config describes.

    Raises:
      FlaxdigitsError: if the name is not registered, the numbers do not fit the architecture, or it
        has not the fields that are set, or others.
    """
    if config.name not in ARCHITECTURES:
        raise FlaxdigitsError(
            f"model.name must be one of {', '.join(sorted(ARCHITECTURES))}, got {config.name!r}; "
            "an architecture of your own is registered by its experiment file: name that file "
            "with --experiment")
    architecture = ARCHITECTURES[config.name]
    model = architecture(**_values_of_fields(architecture, config, num_classes))
    if isinstance(model, Architecture):
        _check_lengths(model)
    return model


def _values_of_fields(
    architecture: type[nn.Module], config: ModelConfig, num_classes: int
) -> dict[str, Any]:
    """The config's values that the architecture has fields for."""
    fields = {field.name: field for field in dataclasses.fields(architecture)
              if field.init and field.name not in ("name", "parent")}
    values: dict[str, Any] = {"num_classes": num_classes} if "num_classes" in fields else {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in fields:
            values[field.name] = value
        elif field.name != "name" and value != field.default:
            raise FlaxdigitsError(
                f"model.{field.name} is {value!r}, and {architecture.__name__} has no field of "
                "that name: leave it at its default, or add the field")
    missing = [name for name, field in fields.items() if name not in values
               and field.default is field.default_factory is dataclasses.MISSING]
    if missing:
        raise FlaxdigitsError(
            f"{architecture.__name__} has a field {missing[0]} without a default, which "
            f"{type(config).__name__} has not: give it one, or add it to a ModelConfig of your own")
    return values


def check_logits(
    model: nn.Module, variables: Any, image_shape: tuple[int, ...], num_classes: int
) -> None:
    """Raises FlaxdigitsError if a model of one's own makes no logit for each class of an image."""
    if isinstance(model, Architecture):
        return
    shape = jax.eval_shape(
        lambda: model.apply(variables, jnp.zeros((2, *image_shape)), None)).shape
    if shape != (2, num_classes):
        raise FlaxdigitsError(
            f"{type(model).__name__} makes {list(shape)} of 2 images; it must be logits, "
            f"[2, {num_classes}]")


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
