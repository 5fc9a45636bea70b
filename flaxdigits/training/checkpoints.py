"""Checkpoints of a run: orbax behind a small door.

Each holds the whole train state and a `Record`; saving is asynchronous, and what lies in the
folder under its final name is complete.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.parallel import first_line, is_writer

SAVE = "cannot save a checkpoint: {}; is there space, and may you write there?"
READ = ("cannot read a checkpoint: {}; it is damaged: name another with --checkpoint, or delete "
        "its folder to go on from the one before")

# Where Orbax moves what is to be deleted: at a stroke, so that a kill leaves no half of a step.
DELETED = ".deleted"


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a run at a checkpoint, beside its state."""

    seconds_compiling: float = 0.0
    seconds_training: float = 0.0
    seconds_evaluating: float = 0.0
    validation_accuracy: float | None = None  # None: not scored at this step
    validation_loss: float | None = None


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      folder: made when missing.
      keep: how many of the newest are kept, beside the best; None: all.
      access: `write` clears away what a killed run left half saved; `read` touches nothing.
    """

    def __init__(
        self, folder: Path, keep: int | None = None, access: Literal["read", "write"] = "write"
    ) -> None:
        self._folder = folder.absolute()
        self._keep = keep
        is_writing = access == "write"
        if is_writing:
            self._clear_deleted()  # of a run that was killed meanwhile
        with self._clear_errors(SAVE), _without_warnings():  # that reading is but reading
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    cleanup_tmp_directories=is_writing, read_only=not is_writing,
                    create=is_writing, todelete_subdir=DELETED if is_writing else None),
                item_handlers={"state": ocp.StandardCheckpointHandler(),
                               "record": ocp.JsonCheckpointHandler()})
        self._steps = set(self._manager.all_steps())
        self._records: dict[int, Record] = {}

    def steps(self) -> list[int]:
        """The steps that are saved, in order."""
        return sorted(self._steps)

    def last(self) -> int | None:
        """The newest step."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step of highest validation accuracy (then lowest loss, then newest) of those kept."""
        scored = [(record.validation_accuracy, -record.validation_loss, step)
                  for step, record in ((step, self.record(step)) for step in self.steps())
                  if record.validation_accuracy is not None]
        return max(scored)[-1] if scored else None

    def record(self, step: int) -> Record:
        """What was known at a saved step.

        Raises:
          FlaxdigitsError: if it cannot be read.
        """
        if step not in self._records:
            with self._clear_errors(READ, step):
                saved = self._manager.restore(
                    step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record
                self._records[step] = Record(**saved)
        return self._records[step]

    def save(self, step: int, state: Any, record: Record) -> None:
        """Starts saving; a step that is saved already stays as it is.

        Raises:
          FlaxdigitsError: if this or the save before it could not be written.
        """
        if step in self._steps:
            return
        with self._clear_errors(SAVE):
            self._manager.save(step, args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                record=ocp.args.JsonSave(dataclasses.asdict(record))))
        self._steps.add(step)
        self._records[step] = record
        self._prune()

    def restore(self, step: int, target: Any) -> Any:
        """The state saved at `step`, with the structure and shardings of `target`.

        Raises:
          FlaxdigitsError: if it is of another architecture or optimizer, or cannot be read.
        """
        self.wait()
        check_same_shapes(self.shapes(step), target, self._folder / str(step))
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        with self._clear_errors(READ, step):
            return self._manager.restore(step, args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract))).state

    def restore_arrays(self, step: int) -> dict[str, Any]:
        """The state saved at `step` as nested dictionaries of NumPy arrays."""
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with self._clear_errors(READ, step):
            abstract = jax.tree.map(
                lambda saved: jax.ShapeDtypeStruct(saved.shape, saved.dtype, sharding=here),
                self._manager.item_metadata(step).state)
            arrays = self._manager.restore(step, args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract))).state
        return jax.tree.map(np.asarray, arrays)

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """The shape of every array saved at `step`, by its dotted path."""
        with self._clear_errors(READ, step):
            return paths_and_shapes(self._manager.item_metadata(step).state)

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          FlaxdigitsError: if something could not be written.
        """
        with self._clear_errors(SAVE):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        with self._clear_errors(SAVE):
            self._manager.close()

    def _prune(self) -> None:
        if self._keep is None:
            return
        kept = {*self.steps()[-self._keep:], self.best()}
        doomed = [step for step in self.steps() if step not in kept]
        if doomed:
            self.wait()  # what replaces them must be on disk before they go
        for step in doomed:
            self._manager.delete(step)
            self._steps.remove(step)
        self._clear_deleted()

    def _clear_deleted(self) -> None:
        if is_writer():
            shutil.rmtree(self._folder / DELETED, ignore_errors=True)

    @contextlib.contextmanager
    def _clear_errors(self, what: str, step: int | None = None) -> Iterator[None]:
        """Turns the many kinds of errors of orbax and tensorstore into one line."""
        place = self._folder if step is None else self._folder / str(step)
        try:
            yield
        except FlaxdigitsError:
            raise
        except Exception as error:
            raise FlaxdigitsError(
                f"{place}: {what.format(first_line(error))}") from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def flat_arrays(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their dotted paths."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {".".join(_name(key) for key in path): leaf for path, leaf in flat}


def paths_and_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every array of a tree, by its dotted path."""
    return {path: tuple(leaf.shape) for path, leaf in flat_arrays(tree).items()}


def _name(key: Any) -> str:
    return str(next(getattr(key, attribute) for attribute in ("name", "key", "idx")
                    if hasattr(key, attribute)))


def check_same_shapes(saved: dict[str, tuple[int, ...]], target: Any, place: os.PathLike) -> None:
    """Raises FlaxdigitsError naming the first array in which the two differ."""
    wanted = paths_and_shapes(target)
    for path in sorted(saved.keys() | wanted.keys()):
        if saved.get(path) != wanted.get(path):
            def tell(shape: tuple[int, ...] | None) -> str:
                return "no such array" if shape is None else f"shape {list(shape)}"
            raise FlaxdigitsError(
                f"{place}: a checkpoint of another model: {path} has {tell(saved.get(path))}, "
                f"this config's has {tell(wanted.get(path))}")
