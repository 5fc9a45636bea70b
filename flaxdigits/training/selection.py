"""Opens the checkpoints of a run, selects one of them, and warns if a later or better one is gone.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.checkpoints import Checkpoints
from flaxdigits.training.identity import run_identity
from flaxdigits.training.parallel import is_writer
from flaxdigits.training.run_folder import RunFolder

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def checkpoint_reader(folder: RunFolder) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run to read them, and closes them afterwards.

    Raises:
      FlaxdigitsError: if the folder is not a run folder, or its `config.json` is damaged.
    """
    checkpoints = Checkpoints(
        folder.checkpoints, access="read", run=run_identity(folder.recorded()))
    try:
        yield checkpoints
    finally:
        checkpoints.close()


@contextlib.contextmanager
def checkpoint_writer(
    folder: RunFolder, keep: int | None, run: Mapping[str, Any]
) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run to write them, and waits at the end until they are saved.

    Args:
      folder: the run folder.
      keep: see `Checkpoints`.
      run: the fields of `config.json` that `run_identity` needs. They are used if this process does
        not see the file yet, because another process has only just written it.

    Raises:
      FlaxdigitsError: if the folder was moved, or a checkpoint could not be written.
    """
    folder.check_present()  # before Orbax creates the folder of the checkpoints in it
    recorded = folder.recorded() if (folder.path / "config.json").exists() else run
    checkpoints = Checkpoints(folder.checkpoints, keep, run=run_identity(recorded))
    try:
        yield checkpoints
    finally:
        try:
            checkpoints.close()
        finally:
            folder.remove_if_recreated()


def select_step(
    which: str, checkpoints: Checkpoints, folder: RunFolder, option: str,
    choices: Sequence[str] = ("last", "best"),
) -> int:
    """Returns the step of the checkpoint that a user selects.

    Args:
      which: `last`, `best` (by validation accuracy) or a step.
      checkpoints: the checkpoints of the run.
      folder: the run folder.
      option: the flag or config field by which the user selects it, for messages.
      choices: the words that may be given instead of a step, for messages.

    Raises:
      FlaxdigitsError: if there is no such checkpoint, or a manifest is damaged.
    """
    steps = checkpoints.steps()
    if not steps:
        raise FlaxdigitsError(f"{option}: {folder.path} has no checkpoint yet: train the run first")
    if which == "last":
        warn_if_newest_is_missing(folder, steps[-1])
        return steps[-1]
    if which == "best":
        best = checkpoints.best()
        if best is None:
            raise FlaxdigitsError(
                f"{option}: no checkpoint of {folder.path} has a validation accuracy, by which the "
                "best is selected: use last")
        warn_if_best_is_missing(folder, checkpoints, best)
        return best
    if not which.isdecimal() or int(which) not in steps:
        raise FlaxdigitsError(
            f"{option}: {folder.path} has no checkpoint {which!r}: expected {', '.join(choices)} "
            f"or one of the steps {', '.join(map(str, steps))}")
    return int(which)


def warn_if_newest_is_missing(folder: RunFolder, newest: int) -> None:
    """Logs a warning if the run has reached a later step than its newest checkpoint.

    Args:
      folder: the run folder.
      newest: the step of the newest checkpoint.
    """
    steps = [row["step"] for row in _rows(folder)]
    with contextlib.suppress(FlaxdigitsError):  # a damaged result is reported where it is used
        steps.append((folder.result() or {}).get("steps"))
    reached = max((step for step in steps if isinstance(step, int)), default=newest)
    if newest < reached and is_writer():
        _log.warning("%s: the newest checkpoint is of step %d, and the run reached step %d",
                     folder.path, newest, reached)


def warn_if_best_is_missing(folder: RunFolder, checkpoints: Checkpoints, best: int) -> None:
    """Logs a warning if a step without a checkpoint was better than the best checkpoint.

    Args:
      folder: the run folder.
      checkpoints: the checkpoints of the run.
      best: the step of the best of them.
    """
    record = checkpoints.record(best)
    known = [(row["validation_accuracy"], -row["validation_loss"], row["step"])
             for row in _rows(folder)
             if all(isinstance(row.get(name), int | float)
                    for name in ("validation_accuracy", "validation_loss"))]
    better = max((score for score in known if score[-1] not in checkpoints.steps()), default=None)
    if (better is not None and is_writer()
            and better[:2] > (record.validation_accuracy, -record.validation_loss)):
        _log.warning("%s: the best of the saved checkpoints is of step %d, and step %d was better",
                     folder.path, best, better[-1])


def _rows(folder: RunFolder) -> list[dict[str, Any]]:
    return [row for row in folder.rows("metrics.jsonl")
            if isinstance(row, dict) and isinstance(row.get("step"), int)]
