"""Scores of a run's checkpoints, kept in `eval.jsonl`."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.checkpoints import Checkpoints, DamagedCheckpoint, MissingCheckpoint
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.identity import run_identity
from flaxdigits.training.run_folder import RunFolder, readable_os_errors
from flaxdigits.training.scores import flat
from flaxdigits.training.selection import warn_if_best_is_missing, warn_if_newest_is_missing
from flaxdigits.training.state import TrainState

_log = logging.getLogger(__name__)

T = TypeVar("T")


def evaluate_checkpoints(
    config: ExperimentConfig, dataset: Dataset, folder: RunFolder | str | os.PathLike[str],
    which: str,
) -> Iterator[dict[str, Any]]:
    """Scores checkpoints on every split; gives a row each, and then adds it to `eval.jsonl`.

    Where that cannot be written, as in a folder of somebody else's, a warning says so once.

    Args:
      config: the run's own.
      dataset: the one that the run was trained on, or another of the same classes.
      folder: of the run, or its path.
      which: `last` (that is not damaged), `best` (by validation accuracy), a step, or `all`: of
        these, those that `eval.jsonl` holds already are not scored again, and those that are
        deleted meanwhile are left out.

    Raises:
      FlaxdigitsError: if there is no such checkpoint, or it is damaged; of `all`, after all others
        are scored.
    """
    folder = RunFolder.of(folder)
    experiment = Experiment.create(config, dataset)
    target = experiment.state_shapes()
    with open_to_read(folder) as checkpoints:

        def restore(step: int) -> Any:
            return checkpoints.restore(step, target)

        if which == "all":
            yield from _evaluate_all(experiment, checkpoints, folder, restore)
        else:
            step, state = restore_selected(
                which, checkpoints, folder, "validation" in experiment.splits, restore,
                ("last", "best", "all"))
            row = _row(experiment, state, step)
            yield row
            with _unwritable_noted():
                folder.append("eval.jsonl", row)


def _evaluate_all(
    experiment: Experiment, checkpoints: Checkpoints, folder: RunFolder,
    restore: Callable[[int], Any],
) -> Iterator[dict[str, Any]]:
    if not checkpoints.steps():
        raise FlaxdigitsError(f"{folder.path}: has no checkpoint yet")
    warn_if_newest_is_missing(folder, checkpoints.steps()[-1])
    damaged, is_kept = [], True
    for step in checkpoints.steps():
        row = _scored(folder, step, experiment.dataset)
        if row is not None:
            yield row
            continue
        try:
            state = restore(step)
        except MissingCheckpoint:
            _log.warning("%s: the checkpoint of step %d was deleted meanwhile and is not scored",
                         folder.path, step)
            continue
        except DamagedCheckpoint as error:
            damaged.append(step)
            _log.warning("%s: the checkpoint is damaged (%s) and is not scored", error.place,
                         error.reason)
            continue
        row = _row(experiment, state, step)
        yield row
        if is_kept:
            with _unwritable_noted() as noted:
                _keep(folder, row, experiment.dataset)
            is_kept = not noted
    if damaged:
        raise FlaxdigitsError(
            f"{folder.checkpoints}: damaged and not scored: step "
            f"{', '.join(map(str, damaged))}; the others are in eval.jsonl")


def _row(experiment: Experiment, state: TrainState, step: int) -> dict[str, Any]:
    """Returns a row of `eval.jsonl`."""
    row: dict[str, Any] = {"step": step, "data_source": experiment.dataset.source,
                           "fingerprint": experiment.dataset.fingerprint}
    for split in ("train", "validation", "test"):
        scores = experiment.score(experiment.predict(state, split))
        row |= flat(split, scores, experiment.config.evaluate.metrics)
    return row


def _scored(folder: RunFolder, step: int, dataset: Dataset) -> dict[str, Any] | None:
    """The last row of `eval.jsonl` about a step on this data, or None."""
    rows = [row for row in folder.rows("eval.jsonl")
            if row["step"] == step and row["fingerprint"] == dataset.fingerprint]
    return rows[-1] if rows else None


@contextlib.contextmanager
def _unwritable_noted() -> Iterator[list[FlaxdigitsError]]:
    """Turns an error of writing into a warning; gives a list that holds it afterwards."""
    noted: list[FlaxdigitsError] = []
    try:
        yield noted
    except FlaxdigitsError as error:
        noted.append(error)
        _log.warning("the scores are not kept: %s", error)


def _keep(folder: RunFolder, row: dict[str, Any], dataset: Dataset) -> None:
    """Adds a row, unless another evaluation has scored that step meanwhile."""
    path = folder.path / "eval.jsonl"
    with readable_os_errors(path), open(path, "ab") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if _scored(folder, row["step"], dataset) is None:
            folder.append("eval.jsonl", row)


@contextlib.contextmanager
def open_to_read(folder: RunFolder) -> Iterator[Checkpoints]:
    """The checkpoints of a run, which are closed in the end.

    Raises:
      FlaxdigitsError: if it has none yet.
    """
    if not folder.checkpoints.is_dir():
        raise FlaxdigitsError(f"{folder.path}: has no checkpoint yet")
    checkpoints = Checkpoints(
        folder.checkpoints, access="read", run=run_identity(folder.recorded()))
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def restore_selected(
    which: str, checkpoints: Checkpoints, folder: RunFolder, has_validation: bool,
    restore: Callable[[int], T], words: Sequence[str] = ("last", "best"),
) -> tuple[int, T]:
    """The step that `which` means: `last` that is not damaged, `best` or a step; and its state.

    Args:
      which: as `--checkpoint` takes it.
      checkpoints: of the run.
      folder: of the run.
      has_validation: whether there is anything to choose the best by.
      restore: called with the step; what it returns is returned.
      words: that the caller takes beside a step.

    Raises:
      FlaxdigitsError: if there is none such, or it is damaged.
    """
    if which == "last" and checkpoints.steps():
        warn_if_newest_is_missing(folder, checkpoints.steps()[-1])
        return checkpoints.restore_newest_intact(restore)
    step = _chosen_step(which, checkpoints, folder, has_validation, words)
    return step, restore(step)


def _chosen_step(
    which: str, checkpoints: Checkpoints, folder: RunFolder, has_validation: bool,
    words: Sequence[str],
) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise FlaxdigitsError(f"{folder.path}: has no checkpoint yet")
    if which == "best":
        if not has_validation:
            raise FlaxdigitsError(
                "--checkpoint=best: this run's split has no validation part to choose by, and "
                "choosing on the test split is not offered; use --checkpoint=last")
        best = checkpoints.best()
        if best is None:
            raise FlaxdigitsError(f"{folder.path}: no checkpoint was scored yet; use last")
        warn_if_best_is_missing(folder, checkpoints, best)
        return best
    if not which.isdecimal() or int(which) not in steps:
        raise FlaxdigitsError(
            f"--checkpoint={which}: expected {', '.join(words)} or one of the steps "
            f"{', '.join(map(str, steps))}")
    return int(which)
