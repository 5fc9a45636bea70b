"""Weights that one run takes over from another."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.checkpoints import Checkpoints, check_same_shapes, paths_and_shapes
from flaxdigits.training.identity import run_identity
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.selection import note_if_behind


def saved_variables(path: str, fresh: dict[str, Any]) -> dict[str, Any]:
    """The weights of the last checkpoint of another run, averaged ones where it has them.

    Args:
      path: of that run's folder.
      fresh: variables of the shapes that are wanted.

    Raises:
      FlaxdigitsError: if that is no run folder, its last checkpoint is damaged, or its weights
        have other shapes.
    """
    folder = RunFolder(Path(path).expanduser())
    checkpoints = Checkpoints(
        folder.checkpoints, access="read", run=run_identity(folder.recorded()))
    try:
        step = checkpoints.last()
        if step is None:
            raise FlaxdigitsError(f"train.init_from: {folder.path} has no checkpoint yet")
        note_if_behind(folder, step)
        return restore_variables(checkpoints, step, fresh, folder.checkpoints)
    finally:
        checkpoints.close()


def restore_variables(
    checkpoints: Checkpoints, step: int, fresh: dict[str, Any], place: Path
) -> dict[str, Any]:
    """The variables of a checkpoint, with the averaged weights where it has them.

    Args:
      checkpoints: of a run.
      step: of one of them.
      fresh: variables, or their shapes, of the model that wants them.
      place: the folder of the checkpoints, to be named in errors.

    Raises:
      FlaxdigitsError: if the checkpoint cannot be read, or its weights have other shapes.
    """
    saved = checkpoints.restore_arrays(step)
    variables = {"params": saved["ema"] or saved["params"], **saved["model_state"]}
    shapes = {name: variables.get(name) for name in fresh}
    check_same_shapes(paths_and_shapes(shapes), fresh, place)
    return jax.tree.map(jnp.asarray, shapes)
