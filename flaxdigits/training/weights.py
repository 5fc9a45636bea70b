"""Weights that one run takes over from another."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user
from flaxdigits.training.checkpoints import (
    Checkpoints,
    check_same_shapes,
    flat_arrays,
    paths_and_shapes,
)
from flaxdigits.training.identity import run_identity
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.selection import warn_if_newest_is_missing


@dataclasses.dataclass(frozen=True)
class SavedWeights:
    """The variables of another run's newest checkpoint, with the averaged params if it has them.

    Attributes:
      variables: nested dictionaries of NumPy arrays.
      place: the folder of the checkpoints.
    """

    variables: dict[str, Any]
    place: Path

    @functools.cached_property
    def digest(self) -> str:
        """A SHA-256 that identifies the weights, wherever they are."""
        arrays, digest = flat_arrays(self.variables), hashlib.sha256()
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array)
        return digest.hexdigest()

    def variables_for(self, fresh: dict[str, Any]) -> dict[str, Any]:
        """Returns the variables as JAX arrays.

        Args:
          fresh: variables, or their shapes, of the model that takes them.

        Raises:
          FlaxdigitsError: if they have other shapes.
        """
        return _as_variables(self.variables, fresh, self.place)


def load_weights(path: str) -> SavedWeights:
    """Loads the weights of another run's newest checkpoint.

    Args:
      path: of that run's folder.

    Raises:
      FlaxdigitsError: if that is no run folder, or its newest checkpoint is damaged.
    """
    folder = RunFolder(expand_user(path))
    folder.data()
    if not folder.checkpoints.is_dir():
        raise FlaxdigitsError(f"train.init_from: {folder.path} has no checkpoint yet")
    checkpoints = Checkpoints(
        folder.checkpoints, access="read", run=run_identity(folder.recorded()))
    try:
        step = checkpoints.last()
        if step is None:
            raise FlaxdigitsError(f"train.init_from: {folder.path} has no checkpoint yet")
        warn_if_newest_is_missing(folder, step)
        return SavedWeights(_weights(checkpoints.restore_arrays(step)), folder.checkpoints)
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
    return _as_variables(_weights(checkpoints.restore_arrays(step)), fresh, place)


def _as_variables(
    saved: dict[str, Any], fresh: dict[str, Any], place: Path
) -> dict[str, Any]:
    variables = {name: saved.get(name) for name in fresh}
    check_same_shapes(paths_and_shapes(variables), fresh, place)
    return jax.tree.map(jnp.asarray, variables)


def _weights(saved: dict[str, Any]) -> dict[str, Any]:
    """The variables of a saved state, with the averaged weights where it has them."""
    return {"params": saved["ema"] or saved["params"], **saved["model_state"]}
