"""Weights that one run takes over from another."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterator
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
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.selection import read_checkpoints, warn_if_newest_is_missing


@dataclasses.dataclass(frozen=True)
class SavedWeights:
    """The variables of a checkpoint of another run, with the averaged params if it has them.

    Attributes:
      variables: nested dictionaries of NumPy arrays.
      place: the folder of the checkpoints.
    """

    variables: dict[str, Any]
    place: Path

    @functools.cached_property
    def digest(self) -> str:
        """A SHA-256 that identifies the weights, wherever they are."""
        return variables_digest(self.variables)

    def variables_for(self, fresh: dict[str, Any]) -> dict[str, Any]:
        """Returns the variables as JAX arrays.

        Args:
          fresh: variables, or their shapes, of the model that takes them.

        Raises:
          FlaxdigitsError: if they have other shapes.
        """
        return _as_variables(self.variables, fresh, self.place)


def load_weights(path: str) -> SavedWeights:
    """Loads the weights of another run.

    Args:
      path: see `open_source`.

    Raises:
      FlaxdigitsError: if that is no run folder, or its checkpoint is damaged.
    """
    with open_source(path, "train.init_from") as (folder, checkpoints, step):
        return SavedWeights(_weights(checkpoints.restore_arrays(step)), folder.checkpoints)


def variables_digest(variables: dict[str, Any]) -> str:
    """Returns the SHA-256 of the arrays of a tree and of their names."""
    arrays, digest = flat_arrays(variables), hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array)
    return digest.hexdigest()


@contextlib.contextmanager
def open_source(path: str, field: str) -> Iterator[tuple[RunFolder, Checkpoints, int]]:
    """Opens the checkpoints of another run, whose weights this run uses.

    Args:
      path: the folder of that run, for its last checkpoint; or with `@best` or `@<step>` appended.
      field: the config field that holds the path, for the message.

    Yields:
      The run folder, its checkpoints and the selected step.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint.
    """
    path, which = split_checkpoint(path)
    folder = RunFolder(expand_user(path))
    try:
        folder.recorded()
    except FlaxdigitsError as error:
        raise FlaxdigitsError(f"{field}: {error}") from error
    if not folder.checkpoints.is_dir():
        raise FlaxdigitsError(f"{field}: {folder.path} has no checkpoint yet")
    with read_checkpoints(folder) as checkpoints:
        yield folder, checkpoints, _find_step(which, checkpoints, folder, field)


def split_checkpoint(path: str) -> tuple[str, str]:
    """Splits `runs/x@best` into the folder and the checkpoint; without one that is `last`."""
    folder, at, which = path.rpartition("@")
    is_checkpoint = at and (which in ("last", "best") or which.isdecimal())
    return (folder, which) if is_checkpoint else (path, "last")


def _find_step(which: str, checkpoints: Checkpoints, folder: RunFolder, field: str) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise FlaxdigitsError(f"{field}: {folder.path} has no checkpoint yet")
    if which == "last":
        warn_if_newest_is_missing(folder, steps[-1])
        return steps[-1]
    if which == "best":
        best = checkpoints.best()
        if best is None:
            raise FlaxdigitsError(
                f"{field}: no checkpoint of {folder.path} has a validation accuracy: use @last")
        return best
    if int(which) not in steps:
        raise FlaxdigitsError(f"{field}: {folder.path} has no checkpoint of step {which}; it has "
                              f"{', '.join(map(str, steps))}")
    return int(which)


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
