"""The network of a run with its weights, without the data that it was trained on."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.builders import BUILDERS
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.data.framing import FRAMINGS, Framing, measure_framing
from flaxdigits.data.preprocessing import preprocess
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.checkpoints import open_to_read, restore_chosen
from flaxdigits.models import build_model
from flaxdigits.training.precision import products
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
      framing: how characters sit in the images that it knows.
    """

    config: ExperimentConfig
    step: int
    model: nn.Module
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    framing: Framing

    def logits(self, images: jax.Array) -> jax.Array:
        """[batch, height, width, 1] uint8 -> [batch, classes] float32."""
        with products("fp32"):
            return self.model.apply(
                self.variables, preprocess(images, self.config.data.preprocessing), None
            ).astype(jnp.float32)


def load_network(
    folder: RunFolder, config: ExperimentConfig | None = None, checkpoint: str = "last"
) -> TrainedNetwork:
    """The network of a run.

    Args:
      folder: of the run.
      config: the run's own, if its architecture is of an experiment file; None reads it.
      checkpoint: `last`, `best` (by validation accuracy) or a step.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint, or the run's own data, which tell
        their classes, are not where they were.
    """
    config = config or folder.config()
    if checkpoint == "all":
        raise FlaxdigitsError("--checkpoint=all is for --mode=eval: name last, best or a step")
    class_names, framing = _of_data(config, folder)
    model = build_model(config.model, len(class_names))
    fresh = jax.eval_shape(
        lambda: init_variables(model, config.seed, (framing.height, framing.width, 1)))
    with open_to_read(folder) as checkpoints:
        step, variables = restore_chosen(
            checkpoint, checkpoints, folder, config.data.split != "official",
            lambda step: restore_variables(checkpoints, step, fresh, folder.checkpoints))
    return TrainedNetwork(config, step, model, variables, class_names, framing)


def _of_data(config: ExperimentConfig, folder: RunFolder) -> tuple[tuple[str, ...], Framing]:
    """The names of the classes, and how characters sit."""
    name = config.data.dataset
    if name in BUILDERS:
        return BUILDERS[name].class_names, FRAMINGS[name]
    dataset = load_dataset(config.data, DataLocations())
    if dataset.fingerprint != folder.data()["fingerprint"]:
        raise FlaxdigitsError(
            f"{folder.path}: trained on data of fingerprint {folder.data()['fingerprint']}, and "
            f"{config.data.folder} has {dataset.fingerprint}; it must be as it was, since its "
            "classes and images tell what the network knows")
    return dataset.class_names, measure_framing(dataset.images)
