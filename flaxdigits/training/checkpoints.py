"""Saves the checkpoints of a run with Orbax, and verifies them whenever they are restored.

A checkpoint contains the train state and a manifest: the elapsed times and validation metrics of
the run at that step, the identity of the run, and a digest of every array. Saving is asynchronous.
A checkpoint gets its final name only when it is complete.
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

# Parts of the messages of read errors that do not mean that a checkpoint is damaged.
ACCESS_ERRORS = (
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "Permission denied", "Too many open files")

# Orbax moves a checkpoint into this folder before it deletes it. The move is atomic, so that a
# process that is killed meanwhile does not leave a part of a checkpoint under its final name.
DELETED = ".deleted"

_log = logging.getLogger(__name__)

T = TypeVar("T")


class DamagedCheckpoint(FlaxdigitsError):
    """A checkpoint cannot be read, or does not match its digest.

    Args:
      path: the folder of the checkpoint.
      reason: what is wrong with it, in a few words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: cannot read a checkpoint: {reason}; it is damaged: select "
                         "another checkpoint, or delete this folder to use the previous "
                         "checkpoint")


class MissingCheckpoint(FlaxdigitsError):
    """A checkpoint has been deleted since the folder was listed."""


@dataclasses.dataclass(frozen=True)
class CheckpointRecord:
    """The elapsed times and the validation metrics of a run at the step of a checkpoint.

    The times are in seconds.
    """

    seconds_compiling: float = 0.0
    seconds_training: float = 0.0
    seconds_evaluating: float = 0.0
    validation_accuracy: float | None = None  # None: not evaluated at this step
    validation_loss: float | None = None


@dataclasses.dataclass(frozen=True)
class CheckpointManifest:
    """The data by which a checkpoint is verified and identified, saved with the train state.

    Attributes:
      record: the elapsed times and validation metrics of the run.
      arrays: `dtype`, `shape` and `digest` of every array by its dotted path; None for a checkpoint
        of an earlier version, which saved no digests and therefore cannot be verified.
      run: the identity of the run (`flaxdigits.training.identity`), or None.
    """

    record: CheckpointRecord
    arrays: dict[str, dict[str, Any]] | None = None
    run: str | None = None


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: the folder of the checkpoints; it is created if it does not exist.
      keep: the number of newest checkpoints to keep, in addition to the best one; None keeps all.
      access: `write` first deletes the incomplete checkpoints of a run that was killed; `read`
        changes nothing in the folder.
      run: the identity of the run. It is saved with each checkpoint, and checkpoints of another run
        are rejected. None saves and compares no identity.

    Raises:
      FlaxdigitsError: if the folder cannot be created or read.
    """

    def __init__(
        self, folder: Path, keep: int | None = None, access: Literal["read", "write"] = "write",
        run: str | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._keep, self._run = keep, run
        is_writing = access == "write"
        if is_writing:
            self._remove_deleted()  # which a killed run may have left
        with self._save_errors(), _absl_warnings_disabled():  # Orbax warns of read-only access
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    cleanup_tmp_directories=is_writing, read_only=not is_writing,
                    create=is_writing, todelete_subdir=DELETED if is_writing else None),
                item_handlers={"state": ocp.StandardCheckpointHandler(),
                               "record": ocp.JsonCheckpointHandler()})
        self._steps = set(self._manager.all_steps())
        self._manifests: dict[int, CheckpointManifest] = {}

    def steps(self) -> list[int]:
        """Returns the saved steps in ascending order."""
        return sorted(self._steps)

    def last(self) -> int | None:
        """Returns the newest step, or None if there is no checkpoint."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Returns the step with the highest validation accuracy among the checkpoints.

        Ties are broken by the lowest loss, then by the newest step. Returns None if no
        checkpoint has been evaluated.

        Raises:
          DamagedCheckpoint: if the manifest of any checkpoint is damaged.
        """
        return _best({step: self.record(step) for step in self.steps()})

    def record(self, step: int) -> CheckpointRecord:
        """Returns the elapsed times and validation metrics that were saved at a step.

        Raises:
          DamagedCheckpoint: if the manifest cannot be read, or does not match its digest.
          MissingCheckpoint: if the checkpoint has been deleted.
          FlaxdigitsError: if the checkpoint is of another run.
        """
        return self._manifest(step).record

    def save(self, step: int, state: Any, record: CheckpointRecord) -> None:
        """Starts saving a checkpoint, unless the step is saved already.

        Raises:
          FlaxdigitsError: if this checkpoint or the previous one could not be written.
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
        self._manifests[step] = CheckpointManifest(record, saved["arrays"], self._run)
        self._prune()

    def restore(self, step: int, target: Any) -> Any:
        """Returns the state saved at `step`, verified by its digests.

        Args:
          step: a saved step.
          target: a state of arrays or `jax.ShapeDtypeStruct`s with the structure, shapes, dtypes
            and shardings of the state to return.

        Raises:
          DamagedCheckpoint: if the checkpoint cannot be read, or does not match its digest.
          MissingCheckpoint: if it has been deleted.
          FlaxdigitsError: if it belongs to another architecture, optimizer or run, or cannot be
            accessed.
        """
        self.wait()
        return self._restored(step, lambda: self._read_state(step, target))

    def restore_arrays(self, step: int) -> dict[str, Any]:
        """Returns the state saved at `step` as nested dictionaries of NumPy arrays, verified.

        Raises:
          DamagedCheckpoint, MissingCheckpoint, FlaxdigitsError: as `restore` does, but the
            checkpoint may be of any architecture and optimizer.
        """
        return self._restored(step, lambda: self._read_arrays(step))

    def restore_newest_intact(self, restore: Callable[[int], T]) -> tuple[int, T]:
        """Returns the newest step whose checkpoint is intact, and the value of `restore(step)`.

        Logs a warning for each damaged checkpoint that is newer.

        Args:
          restore: a function of a step. If it raises DamagedCheckpoint, the previous step is tried.

        Raises:
          FlaxdigitsError: if all checkpoints are damaged or have been deleted.
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
                self.reload()
            else:
                break
        for error in damaged.values():
            if is_writer():
                _log.warning("%s: the checkpoint is damaged (%s); the checkpoint of step %d is "
                             "used instead", error.path, error.reason, step)
        return step, restored

    def reload(self) -> None:
        """Lists the folder again, in case another process has saved or deleted checkpoints."""
        self._manager.reload()
        self._steps = set(self._manager.all_steps())

    def discard(self, steps: Iterable[int]) -> None:
        """Deletes the checkpoints of the given steps.

        Raises:
          FlaxdigitsError: if a checkpoint cannot be deleted.
        """
        with self._save_errors():
            for step in steps:
                self._manager.delete(step)
                self._steps.remove(step)
                self._manifests.pop(step, None)
        self._remove_deleted()

    def wait(self) -> None:
        """Waits until all checkpoints are on disk.

        Raises:
          FlaxdigitsError: if a checkpoint could not be written.
        """
        with self._save_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until all checkpoints are on disk, and closes the Orbax manager.

        Raises:
          FlaxdigitsError: if a checkpoint could not be written.
        """
        with self._save_errors():
            self._manager.close()

    def _restored(self, step: int, read: Callable[[], T]) -> T:
        """Returns the verified value of `read`; if one process finds damage, all processes raise.
        """
        restored, damage = None, None
        try:
            restored = read()
            self._verify(step, flat_arrays(restored))
        except DamagedCheckpoint as error:
            damage = error
        if all_reduce(damage is not None, np.max) or restored is None:
            raise damage or self._damage(step, "another process of this run cannot read it")
        return restored

    def _read_state(self, step: int, target: Any) -> Any:
        """Reads a state with the shardings of `target`, after comparing shapes and dtypes."""
        arrays = self._manifest(step).arrays
        if arrays is None:
            with self._read_errors(step):
                shapes = paths_and_shapes(self._manager.item_metadata(step).state)
        else:
            shapes = _shapes(arrays)
        check_same_shapes(shapes, target, self._folder / str(step))
        for path, array in (flat_arrays(target) if arrays else {}).items():
            if array.dtype.name != arrays[path]["dtype"]:
                raise FlaxdigitsError(
                    f"{self._folder / str(step)}: this checkpoint belongs to another model: the "
                    f"array {path} has dtype {arrays[path]['dtype']}, but this config requires "
                    f"{array.dtype.name}")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        with self._read_errors(step):
            return self._read_items(step, state=ocp.args.StandardRestore(abstract)).state

    def _read_arrays(self, step: int) -> dict[str, Any]:
        """Reads a state as nested dictionaries of NumPy arrays."""
        on_one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        arrays = self._manifest(step).arrays
        with self._read_errors(step):
            saved = self._manager.item_metadata(step).state
            if arrays is not None and paths_and_shapes(saved) != _shapes(arrays):
                raise ValueError("the shapes of its arrays do not match its manifest")
            abstract = jax.tree.map(
                lambda saved: jax.ShapeDtypeStruct(
                    saved.shape, saved.dtype, sharding=on_one_device), saved)
            restored = self._read_items(step, state=ocp.args.StandardRestore(abstract)).state
        return jax.tree.map(np.asarray, restored)

    def _read_items(self, step: int, **items: ocp.args.CheckpointArgs) -> Any:
        """Returns an object whose attributes are the contents of the items of a checkpoint."""
        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _verify(self, step: int, restored: dict[str, Any]) -> None:
        """Raises DamagedCheckpoint if the arrays are not those that were saved.

        Args:
          step: the step of the checkpoint.
          restored: the arrays by their dotted paths.
        """
        saved = self._manifest(step).arrays
        if saved is None:
            if not all(np.isfinite(array).all() for array in restored.values()):
                raise self._damage(step, "it contains numbers that are not finite")
            if is_writer():
                _log.warning("%s: the checkpoint was saved by an earlier version without digests "
                             "and cannot be verified", self._folder / str(step))
            return
        described = describe_arrays(restored)
        for path in sorted(saved.keys() | described.keys()):
            if saved.get(path) != described.get(path):
                raise self._damage(step, f"the digest of {path} does not match")

    def _manifest(self, step: int) -> CheckpointManifest:
        """Returns the manifest of a checkpoint, which is read only once.

        Raises:
          DamagedCheckpoint: if the manifest cannot be read, or does not match its digest.
          MissingCheckpoint: if the checkpoint has been deleted.
          FlaxdigitsError: if the checkpoint belongs to another run.
        """
        if step not in self._manifests:
            with self._read_errors(step):
                self._manifests[step] = _parse_manifest(
                    step, self._read_items(step, record=ocp.args.JsonRestore()).record)
        saved = self._manifests[step]
        if None not in (saved.run, self._run) and saved.run != self._run:
            raise FlaxdigitsError(
                f"{self._folder / str(step)}: this checkpoint belongs to a different run than "
                "config.json (different config or data); delete its folder, or choose another "
                "workdir")
        return saved

    def _damage(self, step: int, reason: str) -> DamagedCheckpoint:
        return DamagedCheckpoint(self._folder / str(step), reason)

    def _no_intact_checkpoint(self, damaged: dict[int, DamagedCheckpoint]) -> FlaxdigitsError:
        """Returns the error of a run that has no intact checkpoint."""
        if not damaged:
            return FlaxdigitsError(f"{self._folder}: all checkpoints have been deleted; repeat the "
                                   "training command to train the run again")
        reason = damaged[max(damaged)].reason
        return FlaxdigitsError(
            f"{self._folder}: all checkpoints are damaged; step {max(damaged)}: {reason}; choose "
            "another workdir, or delete this folder to train from the start")

    def _prune(self) -> None:
        """Deletes all checkpoints except the `keep` newest ones and the best one."""
        if self._keep is None:
            return
        records, unreadable = {}, set()
        for step in self.steps():
            try:
                records[step] = self.record(step)
            except DamagedCheckpoint:  # kept, because it may be the best; `best` then raises
                unreadable.add(step)
        kept = {*self.steps()[-self._keep:], _best(records), *unreadable}
        obsolete = [step for step in self.steps() if step not in kept]
        if obsolete:
            self.wait()  # the newer checkpoints must be on disk before these are deleted
        self.discard(obsolete)

    def _remove_deleted(self) -> None:
        if is_writer():
            shutil.rmtree(self._folder / DELETED, ignore_errors=True)

    @contextlib.contextmanager
    def _save_errors(self) -> Iterator[None]:
        """Converts the exceptions of Orbax and TensorStore into a FlaxdigitsError of one line."""
        try:
            yield
        except FlaxdigitsError:
            raise
        except Exception as error:
            raise FlaxdigitsError(
                f"{self._folder}: cannot save a checkpoint: {first_line(error)}; free space, or "
                "make the folder writable") from error

    @contextlib.contextmanager
    def _read_errors(self, step: int) -> Iterator[None]:
        """Converts an exception of the block that reads a checkpoint.

        Raises:
          DamagedCheckpoint: if the checkpoint is damaged.
          MissingCheckpoint: if it has been deleted.
          FlaxdigitsError: if the checkpoint cannot be accessed, but may be intact.
        """
        path = self._folder / str(step)
        try:
            yield
        except FlaxdigitsError:
            raise
        except Exception as error:
            if not path.is_dir():
                raise MissingCheckpoint(f"{path}: the checkpoint has been deleted") from error
            if isinstance(error, MemoryError) or any(
                    text in str(error) for text in ACCESS_ERRORS):
                raise FlaxdigitsError(
                    f"{path}: cannot read a checkpoint: {first_line(error)}; it may be undamaged: "
                    "make it readable and try again") from error
            reason = first_line(error).partition(" See full TensorStore details")[0]
            raise self._damage(step, reason) from error


def _parse_manifest(step: int, saved: dict[str, Any]) -> CheckpointManifest:
    """Parses the manifest of a checkpoint.

    Raises:
      ValueError, TypeError, KeyError: if the manifest is damaged.
    """
    if not isinstance(saved, dict):
        raise ValueError("its record is not an object")
    if "digest" not in saved:
        record = CheckpointRecord(**saved)
        if not all(isinstance(value, int | float | None)
                   for value in dataclasses.asdict(record).values()):
            raise ValueError("its record contains values that are not numbers")
        if (record.validation_accuracy is None) != (record.validation_loss is None):
            raise ValueError("its record has no validation accuracy or no validation loss")
        return CheckpointManifest(record)
    digest = saved.pop("digest")
    if digest != json_digest(saved):
        raise ValueError("the digest of its manifest does not match")
    if saved["step"] != step:
        raise ValueError(f"it is of step {saved['step']}")
    return CheckpointManifest(CheckpointRecord(**saved["record"]), saved["arrays"], saved["run"])


def _shapes(arrays: dict[str, dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    return {path: tuple(array["shape"]) for path, array in arrays.items()}


def _best(records: dict[int, CheckpointRecord]) -> int | None:
    scored = [(record.validation_accuracy, -record.validation_loss, step)
              for step, record in records.items() if record.validation_accuracy is not None]
    return max(scored)[-1] if scored else None


@contextlib.contextmanager
def _absl_warnings_disabled() -> Iterator[None]:
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def flat_arrays(tree: Any) -> dict[str, Any]:
    """Returns the arrays of a pytree by their dotted paths."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {".".join(_name(key) for key in path): leaf for path, leaf in flat}


def paths_and_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of a pytree by its dotted path."""
    return {path: tuple(leaf.shape) for path, leaf in flat_arrays(tree).items()}


def _name(key: Any) -> str:
    return str(next(getattr(key, attribute) for attribute in ("name", "key", "idx")
                    if hasattr(key, attribute)))


def check_same_shapes(saved: dict[str, tuple[int, ...]], target: Any, path: os.PathLike) -> None:
    """Raises FlaxdigitsError if the arrays of a checkpoint do not have the shapes of a target.

    Args:
      saved: the shapes of the checkpoint's arrays by dotted path.
      target: a pytree of arrays.
      path: the folder of the checkpoint, for the error message.
    """
    wanted = paths_and_shapes(target)
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            found = f"has shape {list(saved[name])}" if name in saved else "is missing"
            required = (f"requires shape {list(wanted[name])}" if name in wanted
                        else "has no such array")
            raise FlaxdigitsError(
                f"{path}: this checkpoint belongs to another model: the array {name} {found}, but "
                f"this config {required}")
