"""Weights that one run takes over from another."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.checkpoints import Checkpoints, check_same_shapes, paths_and_shapes
from flaxdigits.training.run_folder import RunFolder


def saved_variables(path: str, fresh: dict[str, Any]) -> dict[str, Any]:
    """The weights of the last checkpoint of another run, averaged ones where it has them.

    Args:
      path: of that run's folder.
      fresh: variables of the shapes that are wanted.

    Raises:
      FlaxdigitsError: if that is no run folder, or its weights have other shapes.
    """
    folder = RunFolder(Path(path).expanduser())
    folder.data()
    checkpoints = Checkpoints(folder.checkpoints, access="read")
    try:
        step = checkpoints.last()
        if step is None:
            raise FlaxdigitsError(f"train.init_from: {folder.path} has no checkpoint yet")
        saved = checkpoints.restore_arrays(step)
    finally:
        checkpoints.close()
    variables = {"params": saved["ema"] or saved["params"], **saved["model_state"]}
    shapes = {name: variables.get(name) for name in fresh}
    check_same_shapes(paths_and_shapes(shapes), fresh, folder.checkpoints)
    return jax.tree.map(jnp.asarray, shapes)
