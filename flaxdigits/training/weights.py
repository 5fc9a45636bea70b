"""Loads the weights of another run: as initial weights, or as those of a teacher."""

import contextlib
import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flaxdigits.config import ExperimentConfig, complete, flatten, to_dict
from flaxdigits.errors import FlaxdigitsError, quoted
from flaxdigits.patterns import expand_user
from flaxdigits.training.checkpoints import (
    Checkpoints,
    check_same_shapes,
    flat_arrays,
    paths_and_shapes,
)
from flaxdigits.training.parallel import is_writer
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.selection import checkpoint_reader, select_step

_log = logging.getLogger(__name__)

Keys = tuple[str, ...]  # the path of an array: its collection, its layers and its name
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class SavedWeights:
    """The variables that a checkpoint of another run contains.

    Attributes:
      variables: nested dictionaries of NumPy arrays; the params are the averaged ones if the run
        has `train.ema_decay`.
      run: the folder of the other run.
    """

    variables: dict[str, Any]
    run: RunFolder

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of the variables, which identifies them independently of their path."""
        return variables_digest(self.variables)

    def variables_for(
        self, shapes: Callable[[int], dict[str, Any]], num_classes: int,
        config: ExperimentConfig, image_shape: Shape,
    ) -> dict[str, Any]:
        """Returns the variables as JAX arrays, as initial weights of a new run.

        Layers whose shapes differ because the number of classes differs are left out, and named in
        a warning.

        Args:
          shapes: returns the shapes of the variables of the new run's model for a number of
            classes.
          num_classes: the number of classes of the new run.
          config: the config of the new run.
          image_shape: the shape of the images of the new run, (height, width, channels).

        Raises:
          FlaxdigitsError: if the shapes differ for another reason than the number of classes.
        """
        expected = shapes(num_classes)
        variables = {name: self.variables[name] for name in expected if name in self.variables}
        found, wanted = _shapes(variables), _shapes(expected)
        layers = {_layer(path) for path in found.keys() | wanted.keys()
                  if found.get(path) != wanted.get(path)}
        if layers:
            names, run = ", ".join(sorted(layers)), self.run.path
            classes = _num_classes(found, wanted, shapes)
            if classes is None:
                causes = _causes(self.run.recorded(), config, image_shape)
                if causes:
                    raise FlaxdigitsError(
                        f"train.init_from: the weights of {run} do not fit this run: "
                        f"{'; '.join(causes)}; layers that differ: {names}")
                try:
                    check_same_shapes(paths_and_shapes(variables), expected, self.run.checkpoints)
                except FlaxdigitsError as error:
                    raise FlaxdigitsError(
                        f"train.init_from: {error}; layers that differ: {names}") from error
            if is_writer():
                _log.warning(
                    "train.init_from: %s %s newly initialized: this run has %d classes, %s has "
                    "%d", names, "is" if len(layers) == 1 else "are", num_classes, run, classes)
        return unflatten_dict({path: jnp.asarray(array)
                               for path, array in flatten_dict(variables).items()
                               if _layer(path) not in layers})


def load_weights(path: str) -> SavedWeights:
    """Loads the weights of another run.

    Args:
      path: see `open_checkpoint`.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint, or the checkpoint is damaged.
    """
    with open_checkpoint(path, "train.init_from") as (folder, checkpoints, step):
        return SavedWeights(_weights(checkpoints.restore_arrays(step)), folder)


def variables_digest(variables: dict[str, Any]) -> str:
    """Returns the SHA-256 of the arrays of a tree and of their names."""
    arrays, digest = flat_arrays(variables), hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.view(np.uint8).data)
    return digest.hexdigest()


@contextlib.contextmanager
def open_checkpoint(path: str, field: str) -> Iterator[tuple[RunFolder, Checkpoints, int]]:
    """Opens the checkpoints of another run and selects one of them.

    Args:
      path: the folder of the other run, which selects its last checkpoint, or the folder with
        `@best` or `@<step>` appended.
      field: the config field that contains the path, for error messages.

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
        raise FlaxdigitsError(f"{field}: {folder.path} has no checkpoint yet: train the run first")
    with checkpoint_reader(folder) as checkpoints:
        yield folder, checkpoints, select_step(which, checkpoints, folder, field)


def split_checkpoint(path: str) -> tuple[str, str]:
    """Splits a path such as `runs/x@best` into the folder and `last`, `best` or a step.

    A path without `@` selects `last`. A path that exists is a folder even if it ends in `@best`:
    `runs/x@best@last` selects the last checkpoint in such a folder.
    """
    folder, at, which = path.rpartition("@")
    is_checkpoint = (at and (which in ("last", "best") or which.isdecimal())
                     and not expand_user(path).exists())
    return (folder, which) if is_checkpoint else (path, "last")


def restore_variables(
    checkpoints: Checkpoints, step: int, shapes: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Returns the variables of a checkpoint; the params are the averaged ones if it has them.

    Args:
      checkpoints: the checkpoints of a run.
      step: the step of one of them.
      shapes: the shapes of the variables of the model that uses them.
      folder: the folder of the checkpoints, for error messages.

    Raises:
      FlaxdigitsError: if the checkpoint cannot be read, or its weights have other shapes.
    """
    saved = _weights(checkpoints.restore_arrays(step))
    variables = {name: saved.get(name) for name in shapes}
    check_same_shapes(paths_and_shapes(variables), shapes, folder)
    return jax.tree.map(jnp.asarray, variables)


def _weights(saved: dict[str, Any]) -> dict[str, Any]:
    """Returns the variables of a saved state; the params are the averaged ones if it has them."""
    return {"params": saved["ema"] or saved["params"], **saved["model_state"]}


def _num_classes(
    saved: Mapping[Keys, Shape], expected: Mapping[Keys, Shape],
    shapes: Callable[[int], dict[str, Any]],
) -> int | None:
    """Returns the number of classes with which the model has the saved shapes; None if none does.
    """
    path = next((path for path in saved if saved[path] != expected.get(path)), ())
    sizes = zip(saved.get(path, ()), expected.get(path, ()), strict=False)
    return next((size for size, other in sizes
                 if size != other and _shapes(shapes(size)) == saved), None)


def _causes(
    recorded: Mapping[str, Any], config: ExperimentConfig, image_shape: Shape
) -> list[str]:
    """Returns what may explain different shapes: the images and the fields of the model.

    Args:
      recorded: the content of `config.json` of the run with the weights.
      config: the config of the new run, which is initialized with these weights.
      image_shape: the shape of the images of the new run.
    """
    old, new = flatten(complete(recorded["config"])), flatten(to_dict(config))
    values = {name: (old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())
              if name.startswith("model.") and name != "model.dropout"}  # which has no weights
    if "image_shape" in recorded["data"]:
        values["the image shape"] = (recorded["data"]["image_shape"], list(image_shape))
    elif all(was == now for was, now in values.values()):
        values["data.dataset"] = (old.get("data.dataset"), new.get("data.dataset"))
    return [f"{name} is {quoted(was)} in that run and {quoted(now)} in this run"
            for name, (was, now) in values.items() if was != now]


def _shapes(variables: dict[str, Any]) -> dict[Keys, Shape]:
    flat: Any = flatten_dict(variables)
    return {path: tuple(array.shape) for path, array in flat.items()}


def _layer(path: Keys) -> str:
    """Returns the layer of an array, whose path begins with its collection."""
    return "/".join(path[1:-1] or path[1:])
