"""Evaluates the checkpoints of a run and appends the metrics to `eval.jsonl`."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.datasets import SPLITS
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.training.checkpoints import Checkpoints, DamagedCheckpoint, MissingCheckpoint
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.run_folder import RunFolder, readable_os_errors
from flaxdigits.training.scores import scores_by_name
from flaxdigits.training.selection import checkpoint_reader, select_step, warn_if_newest_is_missing
from flaxdigits.training.state import TrainState

_log = logging.getLogger(__name__)

T = TypeVar("T")


def evaluate_checkpoints(
    config: ExperimentConfig, dataset: Dataset, folder: RunFolder | str | os.PathLike[str],
    which: str, progress: Progress = NO_PROGRESS,
) -> Iterator[dict[str, Any]]:
    """Evaluates checkpoints on every split; yields each row, and then appends it to `eval.jsonl`.

    If `eval.jsonl` cannot be written, a warning is logged once and the evaluation continues.

    Args:
      config: the config of the run.
      dataset: the data set that the run was trained on, or another one with the same classes.
      folder: the run folder, or its path.
      which: `last` (the last intact checkpoint), `best` (by validation accuracy), a step, or `all`.
        With `all`, steps that are in `eval.jsonl` are not evaluated again, and checkpoints that
        are deleted during the evaluation are skipped.
      progress: is notified of the splits that are evaluated.

    Raises:
      FlaxdigitsError: if the config does not fit the data, or there is no such checkpoint, or it is
        damaged. With `all`, damaged checkpoints are reported after the others have been evaluated.
    """
    folder = RunFolder.of(folder)
    with progress.stage("building the network"):
        experiment = Experiment.create(config, dataset)
    target = experiment.state_shapes
    with open_checkpoints(folder) as checkpoints:

        def restore(step: int) -> Any:
            return checkpoints.restore(step, target)

        if which == "all":
            yield from _evaluate_all(experiment, checkpoints, folder, restore, progress)
        else:
            step, state = restore_selected(
                which, checkpoints, folder, "validation" in experiment.splits, restore,
                ("last", "best", "all"))
            row = _evaluate(experiment, state, step, progress)
            yield row
            with _warn_if_unwritable():
                folder.append("eval.jsonl", row)


def _evaluate_all(
    experiment: Experiment, checkpoints: Checkpoints, folder: RunFolder,
    restore: Callable[[int], Any], progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Evaluates all intact checkpoints that are not in `eval.jsonl`; yields the rows of all."""
    if not checkpoints.steps():
        raise FlaxdigitsError(f"{folder.path}: has no checkpoint yet: train the run first")
    warn_if_newest_is_missing(folder, checkpoints.steps()[-1])
    damaged, is_writable = [], True
    for step in checkpoints.steps():
        row = _recorded_row(folder, step, experiment.dataset)
        if row is not None:
            yield row
            continue
        try:
            state = restore(step)
        except MissingCheckpoint:
            _log.warning("%s: the checkpoint of step %d was deleted by another process and is not "
                         "evaluated", folder.path, step)
            continue
        except DamagedCheckpoint as error:
            damaged.append(step)
            _log.warning("%s: the checkpoint is damaged (%s) and is not evaluated", error.path,
                         error.reason)
            continue
        row = _evaluate(experiment, state, step, progress)
        yield row
        if is_writable:
            with _warn_if_unwritable() as errors:
                _append_unless_recorded(folder, row, experiment.dataset)
            is_writable = not errors
    if damaged:
        raise FlaxdigitsError(
            f"{folder.checkpoints}: damaged and not evaluated: step "
            f"{', '.join(map(str, damaged))}; the others are in eval.jsonl")


def _evaluate(
    experiment: Experiment, state: TrainState, step: int, progress: Progress
) -> dict[str, Any]:
    """Returns a row of `eval.jsonl`."""
    row: dict[str, Any] = {"step": step, "data_source": experiment.dataset.source,
                           "fingerprint": experiment.dataset.fingerprint}
    for split in SPLITS:
        scores = experiment.compute_metrics(experiment.predict(state, split, progress))
        row |= scores_by_name(split, scores, experiment.config.evaluate.metrics)
    return row


def _recorded_row(folder: RunFolder, step: int, dataset: Dataset) -> dict[str, Any] | None:
    """Returns the last row of `eval.jsonl` for a step and data set, or None."""
    rows = [row for row in folder.rows("eval.jsonl")
            if row["step"] == step and row["fingerprint"] == dataset.fingerprint]
    return rows[-1] if rows else None


@contextlib.contextmanager
def _warn_if_unwritable() -> Iterator[list[FlaxdigitsError]]:
    """Logs a warning instead of raising a write error; yields a list that receives the error."""
    errors: list[FlaxdigitsError] = []
    try:
        yield errors
    except FlaxdigitsError as error:
        errors.append(error)
        _log.warning("the metrics are not saved: %s", error)


def _append_unless_recorded(folder: RunFolder, row: dict[str, Any], dataset: Dataset) -> None:
    """Appends a row, unless another process has appended one for the same step and data."""
    path = folder.path / "eval.jsonl"
    with readable_os_errors(path), open(path, "ab") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if _recorded_row(folder, row["step"], dataset) is None:
            folder.append("eval.jsonl", row)


@contextlib.contextmanager
def open_checkpoints(folder: RunFolder) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run for reading, and closes them at the end of the context.

    Raises:
      FlaxdigitsError: if the run has no checkpoint yet.
    """
    if not folder.checkpoints.is_dir():
        raise FlaxdigitsError(f"{folder.path}: has no checkpoint yet: train the run first")
    with checkpoint_reader(folder) as checkpoints:
        yield checkpoints


def restore_selected(
    which: str, checkpoints: Checkpoints, folder: RunFolder, has_validation: bool,
    restore: Callable[[int], T], choices: Sequence[str] = ("last", "best"),
) -> tuple[int, T]:
    """Restores the checkpoint that `which` selects.

    Args:
      which: `last` (the last intact checkpoint), `best` or a step.
      checkpoints: the checkpoints of the run.
      folder: the run folder.
      has_validation: whether the split has a validation part, which `best` requires.
      restore: a function that restores the checkpoint of a step.
      choices: the values that the caller accepts in addition to a step, for the error message.

    Returns:
      The step, and what `restore` returned for it.

    Raises:
      FlaxdigitsError: if there is no such checkpoint, or it is damaged.
    """
    if which == "last" and checkpoints.steps():
        warn_if_newest_is_missing(folder, checkpoints.steps()[-1])
        return checkpoints.restore_newest_intact(restore)
    if which == "best" and not has_validation:
        raise FlaxdigitsError(
            "checkpoint=best: the split of this run has no validation part, and selecting on "
            "the test split is not supported; use checkpoint=last")
    step = select_step(which, checkpoints, folder, "checkpoint", choices)
    return step, restore(step)
