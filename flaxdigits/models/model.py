"""The base class of the configs of models, and the decorator that registers a model."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from etils import epy

from flaxdigits import components
from flaxdigits.components import Component
from flaxdigits.errors import FlaxdigitsError

with epy.lazy_imports():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

AnyClass = TypeVar("AnyClass", bound=type)

# Fields of a linen module that are not part of its config.
NOT_IN_CONFIG = ("num_classes", "name", "parent")


@dataclasses.dataclass(frozen=True)
class Model(Component, kind="model"):
    """Base class of the configs of models, which have typed fields and build a linen module."""

    def build(self, num_classes: int) -> nn.Module:
        """Returns the linen module.

        It is called as `module(images, training)`, with images of shape [batch, height, width,
        channels] and dtype float32, and returns logits, [batch, num_classes]. `training` is None in
        evaluation, else an object of class `flaxdigits.models.layers.Training`.

        Args:
          num_classes: the number of logits.

        Raises:
          FlaxdigitsError: if the fields are not possible for this number of classes.
        """
        raise NotImplementedError


def register(name: str) -> Callable[[AnyClass], AnyClass]:
    """Returns a class decorator that registers a model, to be selected by `--set model.name=...`.

    The class is a linen module, or a config (a frozen dataclass that subclasses `Model`). For a
    linen module, a config is derived from its fields, each of which needs a default. The config is
    the attribute `Config` of the module: `model=Wide.Config(width=32)`. A field `num_classes` is
    not part of the config; it is set to the number of classes.

    Args:
      name: the name of the model in configs.

    Raises:
      FlaxdigitsError: from the decorator, if the class is neither a linen module nor a config, or
        as in `flaxdigits.components.register`.
    """
    def add(cls: AnyClass) -> AnyClass:
        registered: Any = cls
        if isinstance(cls, type) and issubclass(cls, Model):
            components.register(name)(cls)
            return registered
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise FlaxdigitsError(
                f"register({name!r}): {getattr(cls, '__name__', cls)} must be a subclass of "
                "flax.linen.Module or of flaxdigits.models.Model")
        registered.Config = components.register(name)(_derive_config(cls))
        return registered

    return add


def _derive_config(module: type[nn.Module]) -> type[Model]:
    """Returns a config class with the fields of a linen module, whose `build` creates the module.
    """
    hints = typing.get_type_hints(module)
    fields = [field for field in dataclasses.fields(module)
              if field.init and field.name not in NOT_IN_CONFIG]
    takes_classes = any(field.name == "num_classes" for field in dataclasses.fields(module))

    def build(self: Model, num_classes: int) -> nn.Module:
        classes = {"num_classes": num_classes} if takes_classes else {}
        return module(**classes, **vars(self))

    config = dataclasses.make_dataclass(
        module.__name__,
        [(field.name, hints[field.name], dataclasses.field(
            default=field.default, default_factory=field.default_factory,
            metadata=field.metadata)) for field in fields],
        bases=(Model,), frozen=True, kw_only=True,
        namespace={"build": build, "__doc__": module.__doc__})
    config.__module__ = module.__module__  # Python 3.12 ignores __module__ in the namespace
    return config


def build_model(config: Model, num_classes: int) -> nn.Module:
    """Returns the linen module of a config.

    Raises:
      FlaxdigitsError: if the fields are not compatible with each other, or `build` does not return
        a linen module.
    """
    config.check("model")
    model = config.build(num_classes)
    if not isinstance(model, nn.Module):
        raise FlaxdigitsError(f"model: {config.name} must build a flax.linen.Module, got {model!r}")
    return model


def check_logits(
    model: nn.Module, variables: Any, image_shape: tuple[int, ...], num_classes: int
) -> None:
    """Raises FlaxdigitsError if a model does not return one logit for each class.

    The shapes are derived without computing the logits.

    Args:
      model: a linen module.
      variables: the variables of the model, or their shapes.
      image_shape: (height, width, channels).
      num_classes: the number of classes.
    """
    output = jax.eval_shape(
        lambda variables: model.apply(variables, jnp.zeros((2, *image_shape)), None), variables)
    shape = getattr(output, "shape", None)
    if shape != (2, num_classes):
        got = type(output).__name__ if shape is None else list(shape)
        raise FlaxdigitsError(
            f"{type(model).__name__} returns {got} for 2 images; it must return logits, "
            f"[2, {num_classes}]")
