"""The trained network that the objective `distillation` learns from."""

import dataclasses
from typing import Any

import flax.linen as nn

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models import build_model
from flaxdigits.objectives import Distillation
from flaxdigits.training.run_folder import TEACHER
from flaxdigits.training.state import variables_shapes
from flaxdigits.training.weights import open_checkpoint, restore_variables, variables_digest


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network with fixed weights.

    Attributes:
      model: the linen module.
      variables: the variables of the module.
      digest: the SHA-256 of the variables.
    """

    model: nn.Module
    variables: dict[str, Any]
    digest: str


def load_teacher(config: ExperimentConfig, dataset: Dataset) -> Teacher | None:
    """Loads the teacher of a run; returns None if the objective of the run has no teacher.

    Args:
      config: the config of the run that learns from the teacher.
      dataset: the data set of that run.

    Raises:
      FlaxdigitsError: if `train.objective.teacher` names no run with an undamaged checkpoint, or
        the network does not fit the images, classes or preprocessing of the run that learns.
    """
    objective = config.train.objective
    if not isinstance(objective, Distillation):
        return None
    assert objective.teacher is not None  # as `Distillation.check` requires
    with open_checkpoint(objective.teacher, TEACHER) as (folder, checkpoints, step):
        teacher_config = folder.config()
        preprocessing = teacher_config.data.preprocessing
        if preprocessing != config.data.preprocessing:
            raise FlaxdigitsError(
                f"{TEACHER}: {folder.path} was trained with data.preprocessing={preprocessing}, "
                f"and this run has {config.data.preprocessing}: use the same preprocessing")
        shape, classes = dataset.images.shape[1:], len(dataset.class_names)
        try:
            model = build_model(teacher_config.model, classes)
            variables = restore_variables(
                checkpoints, step, variables_shapes(model, shape), folder.checkpoints)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(
                f"{TEACHER}: {folder.path} cannot teach a run on images of "
                f"{'x'.join(map(str, shape))} and {classes} classes: {error}") from error
    return Teacher(model, variables, variables_digest(variables))


def teacher_digest(config: ExperimentConfig, dataset: Dataset) -> str | None:
    """Returns the digest of the teacher, or None if there is none or it cannot be loaded."""
    try:
        teacher = load_teacher(config, dataset)
    except FlaxdigitsError:
        return None
    return None if teacher is None else teacher.digest
