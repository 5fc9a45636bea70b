"""The network of a run with its weights, without the data that it was trained on."""

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
from flaxdigits.evaluation.checkpoints import open_to_read, restore_selected
from flaxdigits.models import build_model
from flaxdigits.training.precision import matmul_precision
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.state import init_variables
from flaxdigits.training.weights import restore_variables


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A network that has been trained.

    Attributes:
      config: of its run.
      step: of the checkpoint that the weights are from.
      model, variables: of Flax; the weights are the averaged ones where the run has them.
      class_names: in the order of the logits.
      framing: how characters sit in the images that it was trained on; None of images that are not
        grey.
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
        """Returns the logits: [batch, height, width, channels] uint8 -> [batch, classes] float32.
        """
        with matmul_precision("fp32"):
            return self.model.apply(
                self.variables, preprocess(images, self.config.data.preprocessing), None
            ).astype(jnp.float32)


def load_network(
    folder: RunFolder | str | os.PathLike[str], config: ExperimentConfig | None = None,
    checkpoint: str = "last",
) -> TrainedNetwork:
    """The network of a run.

    Args:
      folder: of the run, or its path.
      config: the run's own, if its architecture is of an experiment file; None reads it.
      checkpoint: `last`, `best` (by validation accuracy) or a step.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint, or an older version trained it on
        the user's own data, which alone tell its classes, and they are not where they were.
    """
    folder = RunFolder.of(folder)
    config = config or folder.config()
    if checkpoint == "all":
        raise FlaxdigitsError("--checkpoint=all is for --mode=eval: name last, best or a step")
    class_names, framing, shape = _of_data(config, folder)
    model = build_model(config.model, len(class_names))
    fresh = jax.eval_shape(lambda: init_variables(model, config.seed, shape))
    with open_to_read(folder) as checkpoints:
        step, variables = restore_selected(
            checkpoint, checkpoints, folder, config.data.split != "official",
            lambda step: restore_variables(checkpoints, step, fresh, folder.checkpoints))
    return TrainedNetwork(config, step, model, variables, class_names, framing, shape)


def _of_data(
    config: ExperimentConfig, folder: RunFolder
) -> tuple[tuple[str, ...], Framing | None, tuple[int, int, int]]:
    """Returns the names of the classes, the framing and the shape of the images.

    Those of custom data are in `config.json`. A run of an older version lacks them, and
    has them from its data.
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
            f"{folder.path}: was trained by an older version, which did not keep the names of the "
            f"classes, on data of fingerprint {recorded['fingerprint']}, and {config.data.folder} "
            f"has {dataset.fingerprint}; put the data back as they were")
    return dataset.class_names, measure_framing(dataset.images), dataset.images.shape[1:]
