"""Checkpoints of a run, saved by Orbax and verified whenever they are restored.

Each holds the whole train state and a record: what is known of the run at that step, whose
checkpoint it is, and a digest of every array. Saving is asynchronous, and what lies in the folder
under its final name is complete.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.digests import describe_arrays, json_digest
from flaxdigits.training.parallel import all_reduce, first_line, is_writer

SAVE = "cannot save a checkpoint: {}; is there space, and may you write there?"
REFUSED = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "Permission denied", "Too many open files")

# Where Orbax moves what is to be deleted: at a stroke, so that a kill leaves no half of a step.
DELETED = ".deleted"

_log = logging.getLogger(__name__)

T = TypeVar("T")


class DamagedCheckpoint(FlaxdigitsError):
    """A checkpoint cannot be read, or is not what was saved.

    Args:
      place: its folder.
      reason: in a few words.
    """

    def __init__(self, place: Path, reason: str) -> None:
        self.place, self.reason = place, reason
        super().__init__(f"{place}: cannot read a checkpoint: {reason}; it is damaged: name "
                         "another with --checkpoint, or delete its folder to use the one before")


class MissingCheckpoint(FlaxdigitsError):
    """A checkpoint was deleted since the folder was listed."""


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What is known of a run at a checkpoint, beside its state."""

    seconds_compiling: float = 0.0
    seconds_training: float = 0.0
    seconds_evaluating: float = 0.0
    validation_accuracy: float | None = None  # None: not scored at this step
    validation_loss: float | None = None


@dataclasses.dataclass(frozen=True)
class SavedRecord:
    """All that the record of a checkpoint holds.

    Attributes:
      record: what is known of the run.
      arrays: `dtype`, `shape` and `digest` of every array by its dotted path; None of checkpoints
        of versions that saved no digests, which cannot be verified.
      run: the identity of the run (`flaxdigits.training.identity`), or None.
    """

    record: RunRecord
    arrays: dict[str, dict[str, Any]] | None = None
    run: str | None = None


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      folder: made when missing.
      keep: how many of the newest are kept, beside the best; None: all.
      access: `write` clears away what a killed run left half saved; `read` touches nothing.
      run: the identity of the run, which is saved with each checkpoint; those of another run are
        refused. None: neither.
    """

    def __init__(
        self, folder: Path, keep: int | None = None, access: Literal["read", "write"] = "write",
        run: str | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._keep, self._run = keep, run
        is_writing = access == "write"
        if is_writing:
            self._clear_deleted()  # of a run that was killed meanwhile
        with self._save_errors(), _without_warnings():  # that reading is but reading
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    cleanup_tmp_directories=is_writing, read_only=not is_writing,
                    create=is_writing, todelete_subdir=DELETED if is_writing else None),
                item_handlers={"state": ocp.StandardCheckpointHandler(),
                               "record": ocp.JsonCheckpointHandler()})
        self._steps = set(self._manager.all_steps())
        self._records: dict[int, SavedRecord] = {}

    def steps(self) -> list[int]:
        """The steps that are saved, in order."""
        return sorted(self._steps)

    def last(self) -> int | None:
        """The newest step."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step of highest validation accuracy (then lowest loss, then newest) of those kept.

        Raises:
          DamagedCheckpoint: if the record of any of them is damaged.
        """
        return _best({step: self.record(step) for step in self.steps()})

    def record(self, step: int) -> RunRecord:
        """What was known at a saved step.

        Raises:
          DamagedCheckpoint: if it cannot be read, or is not what was saved.
          MissingCheckpoint: if it was deleted meanwhile.
          FlaxdigitsError: if it is of another run.
        """
        return self._saved_record(step).record

    def save(self, step: int, state: Any, record: RunRecord) -> None:
        """Starts saving; a step that is saved already stays as it is.

        Raises:
          FlaxdigitsError: if this or the save before it could not be written.
        """
        if step in self._steps:
            return
        with self._save_errors():
            saved = {"step": step, "run": self._run, "record": dataclasses.asdict(record),
                     "arrays": describe_arrays(flat_arrays(state))}
            self._manager.save(step, args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                record=ocp.args.JsonSave(saved | {"digest": json_digest(saved)})))
        self._steps.add(step)
        self._records[step] = SavedRecord(record, saved["arrays"], self._run)
        self._prune()

    def restore(self, step: int, target: Any) -> Any:
        """The state saved at `step`, with the structure and shardings of `target`, verified.

        Raises:
          DamagedCheckpoint: if it cannot be read, or is not what was saved.
          MissingCheckpoint: if it was deleted meanwhile.
          FlaxdigitsError: if it is of another architecture, optimizer or run.
        """
        self.wait()
        return self._restored(step, lambda: self._read_state(step, target))

    def restore_arrays(self, step: int) -> dict[str, Any]:
        """The state saved at `step` as nested dictionaries of NumPy arrays, verified.

        Raises:
          FlaxdigitsError: as `restore` does.
        """
        return self._restored(step, lambda: self._read_arrays(step))

    def restore_newest_intact(self, restore: Callable[[int], T]) -> tuple[int, T]:
        """The newest step that is not damaged, and what `restore` returns for it.

        Each damaged one is named in a warning.

        Args:
          restore: called with a step; a DamagedCheckpoint that it raises leads to the step before.

        Raises:
          FlaxdigitsError: if none is whole.
        """
        damaged: dict[int, DamagedCheckpoint] = {}
        while True:
            step = max(self._steps - damaged.keys(), default=None)
            if step is None:
                raise self._no_intact_checkpoint(damaged)
            try:
                restored = restore(step)
            except DamagedCheckpoint as error:
                damaged[step] = error
            except MissingCheckpoint:
                self.list_again()
            else:
                break
        for error in damaged.values():
            if is_writer():
                _log.warning("%s: the checkpoint is damaged (%s); that of step %d is used in its "
                             "place", error.place, error.reason, step)
        return step, restored

    def list_again(self) -> None:
        """Looks which steps there are now, while another process saves and deletes them."""
        self._manager.reload()
        self._steps = set(self._manager.all_steps())

    def discard(self, steps: Iterable[int]) -> None:
        """Deletes checkpoints."""
        with self._save_errors():
            for step in steps:
                self._manager.delete(step)
                self._steps.remove(step)
                self._records.pop(step, None)
        self._clear_deleted()

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          FlaxdigitsError: if something could not be written.
        """
        with self._save_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        with self._save_errors():
            self._manager.close()

    def _restored(self, step: int, read: Callable[[], T]) -> T:
        """What `read` returns, verified; all processes raise DamagedCheckpoint if one does."""
        damage = None
        try:
            restored = read()
            self._verify(step, flat_arrays(restored))
        except DamagedCheckpoint as error:
            damage = error
        if all_reduce(damage is not None, np.max):
            raise damage or self._damage(step, "another process of this run cannot read it")
        return restored

    def _read_state(self, step: int, target: Any) -> Any:
        arrays = self._saved_record(step).arrays
        if arrays is None:
            with self._read_errors(step):
                shapes = paths_and_shapes(self._manager.item_metadata(step).state)
        else:
            shapes = _shapes(arrays)
        check_same_shapes(shapes, target, self._folder / str(step))
        for path, array in (flat_arrays(target) if arrays else {}).items():
            if array.dtype.name != arrays[path]["dtype"]:
                raise FlaxdigitsError(
                    f"{self._folder / str(step)}: a checkpoint of another model: {path} is "
                    f"{arrays[path]['dtype']}, this config's is {array.dtype.name}")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        with self._read_errors(step):
            return self._manager.restore(step, args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract))).state

    def _read_arrays(self, step: int) -> dict[str, Any]:
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        arrays = self._saved_record(step).arrays
        with self._read_errors(step):
            saved = self._manager.item_metadata(step).state
            if arrays is not None and paths_and_shapes(saved) != _shapes(arrays):
                raise ValueError("the shapes of its arrays are not what was saved")
            abstract = jax.tree.map(
                lambda saved: jax.ShapeDtypeStruct(saved.shape, saved.dtype, sharding=here), saved)
            restored = self._manager.restore(step, args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract))).state
        return jax.tree.map(np.asarray, restored)

    def _verify(self, step: int, restored: dict[str, Any]) -> None:
        """Raises DamagedCheckpoint if the arrays, by their paths, are not those that were saved."""
        saved = self._saved_record(step).arrays
        if saved is None:
            if not all(np.isfinite(array).all() for array in restored.values()):
                raise self._damage(step, "it holds numbers that are not finite")
            if is_writer():
                _log.warning("%s: the checkpoint was saved by a version that kept no digests, and "
                             "cannot be verified", self._folder / str(step))
            return
        described = describe_arrays(restored)
        for path in sorted(saved.keys() | described.keys()):
            if saved.get(path) != described.get(path):
                raise self._damage(step, f"{path} is not what was saved")

    def _saved_record(self, step: int) -> SavedRecord:
        if step not in self._records:
            with self._read_errors(step):
                self._records[step] = _parse_record(step, self._manager.restore(
                    step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record)
        saved = self._records[step]
        if None not in (saved.run, self._run) and saved.run != self._run:
            raise FlaxdigitsError(
                f"{self._folder / str(step)}: a checkpoint of another run than config.json tells "
                "of, with another config or other data; delete its folder, or choose another "
                "--workdir")
        return saved

    def _damage(self, step: int, what: str) -> DamagedCheckpoint:
        return DamagedCheckpoint(self._folder / str(step), what)

    def _no_intact_checkpoint(self, damaged: dict[int, DamagedCheckpoint]) -> FlaxdigitsError:
        if not damaged:
            return FlaxdigitsError(f"{self._folder}: has no checkpoint any more")
        reason = damaged[max(damaged)].reason
        return FlaxdigitsError(
            f"{self._folder}: no checkpoint is whole; of that of step {max(damaged)}, {reason}; "
            "name another --workdir, or delete this folder to train from the start")

    def _prune(self) -> None:
        if self._keep is None:
            return
        records, unreadable = {}, set()
        for step in self.steps():
            try:
                records[step] = self.record(step)
            except DamagedCheckpoint:  # it may be the best: selecting that is an error
                unreadable.add(step)
        kept = {*self.steps()[-self._keep:], _best(records), *unreadable}
        doomed = [step for step in self.steps() if step not in kept]
        if doomed:
            self.wait()  # what replaces them must be on disk before they go
        self.discard(doomed)

    def _clear_deleted(self) -> None:
        if is_writer():
            shutil.rmtree(self._folder / DELETED, ignore_errors=True)

    @contextlib.contextmanager
    def _save_errors(self) -> Iterator[None]:
        """Turns the many kinds of errors of orbax and tensorstore into one line."""
        try:
            yield
        except FlaxdigitsError:
            raise
        except Exception as error:
            raise FlaxdigitsError(f"{self._folder}: {SAVE.format(first_line(error))}") from error

    @contextlib.contextmanager
    def _read_errors(self, step: int) -> Iterator[None]:
        """Turns them into one line that says whether the checkpoint is damaged."""
        place = self._folder / str(step)
        try:
            yield
        except FlaxdigitsError:
            raise
        except Exception as error:
            if not place.is_dir():
                raise MissingCheckpoint(f"{place}: the checkpoint is not there any more") from error
            if isinstance(error, MemoryError) or any(word in str(error) for word in REFUSED):
                raise FlaxdigitsError(
                    f"{place}: cannot read a checkpoint: {first_line(error)}; it may be whole: "
                    "see to it that it can be read") from error
            reason = first_line(error).partition(" See full TensorStore details")[0]
            raise self._damage(step, reason) from error


def _parse_record(step: int, saved: dict[str, Any]) -> SavedRecord:
    """The record of a checkpoint; raises ValueError or TypeError if it is damaged."""
    if not isinstance(saved, dict):
        raise ValueError("its record is not an object")
    if "digest" not in saved:
        record = RunRecord(**saved)
        if not all(isinstance(value, int | float | None)
                   for value in dataclasses.asdict(record).values()):
            raise ValueError("its record holds other values than numbers")
        if (record.validation_accuracy is None) != (record.validation_loss is None):
            raise ValueError("its record holds half of a score")
        return SavedRecord(record)
    digest = saved.pop("digest")
    if digest != json_digest(saved):
        raise ValueError("its record is not what was saved")
    if saved["step"] != step:
        raise ValueError(f"it is of step {saved['step']}")
    return SavedRecord(RunRecord(**saved["record"]), saved["arrays"], saved["run"])


def _shapes(arrays: dict[str, dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    return {path: tuple(array["shape"]) for path, array in arrays.items()}


def _best(records: dict[int, RunRecord]) -> int | None:
    scored = [(record.validation_accuracy, -record.validation_loss, step)
              for step, record in records.items() if record.validation_accuracy is not None]
    return max(scored)[-1] if scored else None


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
            def describe(shape: tuple[int, ...] | None) -> str:
                return "no such array" if shape is None else f"shape {list(shape)}"
            raise FlaxdigitsError(
                f"{place}: a checkpoint of another model: {path} has {describe(saved.get(path))}, "
                f"this config's has {describe(wanted.get(path))}")
