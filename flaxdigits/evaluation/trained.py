"""Loads the trained network of a run, without the data that it was trained on."""

import dataclasses
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.builders import BUILDERS
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.data.framing import FRAMINGS, Framing, measure_framing, recorded_framing
from flaxdigits.data.preprocessing import preprocess
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.checkpoints import open_checkpoints, restore_selected
from flaxdigits.models import build_model
from flaxdigits.training.precision import matmul_precision
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.state import init_variables
from flaxdigits.training.weights import restore_variables


@dataclasses.dataclass(frozen=True)
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

    def logits(self, images: jax.Array) -> jax.Array:
        """Computes logits: [batch, height, width, channels] uint8 -> [batch, classes] float32."""
        with matmul_precision("fp32"):
            return self.model.apply(
                self.variables, preprocess(images, self.config.data.preprocessing), None
            ).astype(jnp.float32)


def load_network(
    folder: RunFolder | str | os.PathLike[str], config: ExperimentConfig | None = None,
    checkpoint: str = "last",
) -> TrainedNetwork:
    """Loads the network of a run.

    Args:
      folder: the run folder, or its path.
      config: the config of the run, needed for a custom model; None to read it from the folder.
      checkpoint: `last`, `best` (by validation accuracy) or a step.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint; or if an earlier version started the
        run, which did not save the class names of custom data, and the data cannot be found.
    """
    folder = RunFolder.of(folder)
    config = config or folder.config()
    if checkpoint == "all":
        raise FlaxdigitsError("--checkpoint=all is for --mode=eval: use last, best or a step")
    class_names, framing, shape = _classes_framing_and_shape(config, folder)
    model = build_model(config.model, len(class_names))
    shapes = jax.eval_shape(lambda: init_variables(model, config.seed, shape))
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
