"""Loads the trained network of a run, without the data that it was trained on."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.arrays import as_array, not_uint8_message
from flaxdigits.data.builders import BUILDERS
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.data.framing import FRAMINGS, Framing, measure_framing, recorded_framing
from flaxdigits.data.preprocessing import preprocess
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.checkpoints import open_checkpoints, restore_selected
from flaxdigits.experiments import run_config
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.models import build_model
from flaxdigits.training.precision import matmul_precision
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.state import variables_shapes
from flaxdigits.training.weights import restore_variables

MAX_BATCH_SIZE = 128


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TrainedNetwork:
    """A trained network.

    Attributes:
      config: the config of its run.
      step: the step of the checkpoint.
      model: the linen module.
      variables: the variables of the model, with averaged weights if `train.ema_decay` is set.
      class_names: the names of the classes in the order of the logits.
      framing: the size, position and thickness of characters in the training images; None if the
        images have several channels.
      image_shape: height, width and channels of an image.
    """

    config: ExperimentConfig
    step: int
    model: nn.Module
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    framing: Framing | None
    image_shape: tuple[int, int, int]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by layer; the averaged ones if the run has them (`train.ema_decay`)."""
        return self.variables["params"]

    @property
    def model_state(self) -> dict[str, Any]:
        """The other collections of variables, such as `batch_stats`; usually empty."""
        return {name: value for name, value in self.variables.items() if name != "params"}

    def __repr__(self) -> str:
        """Returns a line without the arrays."""
        shape = "x".join(map(str, self.image_shape))
        return (f"<{type(self).__name__} {self.config.experiment}, step {self.step}: uint8 images "
                f"of {shape} to {len(self.class_names)} classes>")

    def apply(self, variables: dict[str, Any], images: jax.Array) -> jax.Array:
        """Computes logits in a function that JAX can trace, differentiate and compile.

        Args:
          variables: `self.variables`, or others of the same structure.
          images: [batch, height, width, channels], values 0 to 255, any dtype.

        Returns:
          [batch, classes] float32.
        """
        with matmul_precision("fp32"):
            logits: Any = self.model.apply(
                variables, preprocess(images, self.config.data.preprocessing), None)
            return logits.astype(jnp.float32)

    @pinned_settings()
    def logits(self, images: ArrayLike) -> np.ndarray:
        """Computes the logits of any number of images, in batches.

        Args:
          images: [n, height, width, channels] uint8 of the shape `image_shape`, n >= 0; also
            [n, height, width] if there is one channel.

        Returns:
          [n, classes] float32.

        Raises:
          FlaxdigitsError: if the images have another dtype or shape.
        """
        images = self._checked(images)
        logits = np.empty((len(images), len(self.class_names)), np.float32)
        for start in range(0, len(images), MAX_BATCH_SIZE):
            batch = images[start:start + MAX_BATCH_SIZE]
            # Batches are padded to powers of two to limit recompilation.
            size = 1 << (len(batch) - 1).bit_length()
            padded = np.pad(batch, [(0, size - len(batch))] + [(0, 0)] * 3)
            logits[start:start + len(batch)] = self._compiled(self.variables, padded)[:len(batch)]
        return logits

    @functools.cached_property
    def _compiled(self) -> Callable[..., jax.Array]:
        return jax.jit(self.apply)

    def _checked(self, images: ArrayLike) -> np.ndarray:
        """Returns images as an array: [n, height, width, channels] uint8."""
        array = as_array(images, "images")
        height, width, channels = self.image_shape
        if array.dtype != np.uint8:
            raise FlaxdigitsError(not_uint8_message(array.dtype))
        if channels == 1 and array.ndim == 3:
            array = array[..., None]
        if array.ndim != 4 or array.shape[1:] != self.image_shape:
            allowed = f"[n, {height}, {width}, {channels}]" + (
                f" or [n, {height}, {width}]" if channels == 1 else "")
            raise FlaxdigitsError(
                f"images must be of shape {allowed}, got {list(np.shape(images))}; for one image, "
                "pass image[None]; frame() resizes images to this shape")
        return array


def load_network(
    folder: RunFolder | str | os.PathLike[str], config: ExperimentConfig | None = None,
    checkpoint: str = "last",
) -> TrainedNetwork:
    """Loads the network of a run.

    Args:
      folder: the run folder, or its path.
      config: the config of the run; None: the config in the folder, after its custom components
        are registered (see `flaxdigits.experiments.run_config`).
      checkpoint: `last`, `best` (by validation accuracy) or a step.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint, or the checkpoint is damaged; or if
        the run was started by an earlier version, which did not save the class names of custom
        data, and the data cannot be found.
    """
    folder = RunFolder.of(folder)
    config = config or run_config(folder)
    if checkpoint == "all":
        raise FlaxdigitsError(
            "checkpoint=all is supported only by evaluate: use last, best or a step")
    class_names, framing, shape = _classes_framing_and_shape(config, folder)
    model = build_model(config.model, len(class_names))
    shapes = variables_shapes(model, shape)
    with open_checkpoints(folder) as checkpoints:
        step, variables = restore_selected(
            checkpoint, checkpoints, folder, config.data.split != "official",
            lambda step: restore_variables(checkpoints, step, shapes, folder.checkpoints))
    return TrainedNetwork(config, step, model, variables, class_names, framing, shape)


def _classes_framing_and_shape(
    config: ExperimentConfig, folder: RunFolder
) -> tuple[tuple[str, ...], Framing | None, tuple[int, int, int]]:
    """Returns the class names, and the framing and the shape of the training images.

    For custom data they are read from `config.json`, or from the data if the run was started by an
    earlier version, which did not save them.
    """
    name, recorded = config.data.dataset, folder.data()
    if name in BUILDERS:
        framing = FRAMINGS[name]
        return BUILDERS[name].class_names, framing, (framing.height, framing.width, 1)
    class_names, shape = tuple(recorded.get("class_names", ())), recorded.get("image_shape")
    if class_names and shape is not None and shape[-1] > 1:
        return class_names, None, tuple(shape)
    framing = recorded_framing(recorded.get("framing"), folder.path / "config.json")
    if framing is not None and class_names:
        return class_names, framing, (framing.height, framing.width, 1)
    dataset = load_dataset(config.data, DataLocations())
    if dataset.fingerprint != recorded["fingerprint"]:
        raise FlaxdigitsError(
            f"{folder.path}: was trained by an earlier version, which did not save the names of "
            f"the classes, on data with fingerprint {recorded['fingerprint']}, but "
            f"{config.data.folder} has {dataset.fingerprint}; restore the original data")
    return dataset.class_names, measure_framing(dataset.images), dataset.images.shape[1:]
