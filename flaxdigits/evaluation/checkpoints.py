"""Scores of a run's checkpoints, kept in `eval.jsonl`."""

from collections.abc import Iterator, Sequence
from typing import Any

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.scores import flat
from flaxdigits.training.checkpoints import Checkpoints
from flaxdigits.training.run import Run
from flaxdigits.training.run_folder import RunFolder


def evaluate_checkpoints(
    config: ExperimentConfig, dataset: Dataset, folder: RunFolder, which: str
) -> Iterator[dict[str, Any]]:
    """Scores checkpoints on every split; gives a row each, as added to `eval.jsonl`.

    Args:
      config: the run's own.
      dataset: the one that the run was trained on, or another of the same classes.
      folder: of the run.
      which: `last`, `best` (by validation accuracy), a step, or `all`: of these, those that
        `eval.jsonl` holds already are not scored again.

    Raises:
      FlaxdigitsError: if there is no such checkpoint, or it cannot be read.
    """
    run = Run(config, dataset)
    if not folder.checkpoints.is_dir():
        raise FlaxdigitsError(f"{folder.path}: has no checkpoint yet")
    checkpoints = Checkpoints(folder.checkpoints, access="read")
    try:
        done = {row["step"]: row for row in folder.rows("eval.jsonl")
                if row["fingerprint"] == dataset.fingerprint}
        every = checkpoints.steps() if which == "all" else []
        for step in every or [choose_step(which, checkpoints, folder, "validation" in run.splits,
                                          ("last", "best", "all"))]:
            if which == "all" and step in done:
                yield done[step]
                continue
            run.state = checkpoints.restore(step, run.state)
            row: dict[str, Any] = {"step": step, "data_source": dataset.source,
                                   "fingerprint": dataset.fingerprint}
            for name in ("train", "validation", "test"):
                row |= flat(name, run.score(name), run.config.evaluate.metrics)
            folder.append("eval.jsonl", row)
            yield row
    finally:
        checkpoints.close()


def choose_step(
    which: str, checkpoints: Checkpoints, folder: RunFolder, has_validation: bool,
    words: Sequence[str] = ("last", "best"),
) -> int:
    """The step that `which` means: `last`, `best` or a step.

    Args:
      which: as `--checkpoint` takes it.
      checkpoints: of the run.
      folder: of the run.
      has_validation: whether there is anything to choose the best by.
      words: that the caller takes beside a step.

    Raises:
      FlaxdigitsError: if there is none such.
    """
    steps = checkpoints.steps()
    if not steps:
        raise FlaxdigitsError(f"{folder.path}: has no checkpoint yet")
    if which == "last":
        return steps[-1]
    if which == "best":
        if not has_validation:
            raise FlaxdigitsError(
                "--checkpoint=best: this run's split has no validation part to choose by, and "
                "choosing on the test split is not offered; use --checkpoint=last")
        best = checkpoints.best()
        if best is None:
            raise FlaxdigitsError(f"{folder.path}: no checkpoint was scored yet; use last")
        return best
    if not which.isdecimal() or int(which) not in steps:
        raise FlaxdigitsError(
            f"--checkpoint={which}: expected {', '.join(words)} or one of the steps "
            f"{', '.join(map(str, steps))}")
    return int(which)
