"""The records of a run: its times, the rows of `metrics.jsonl`, `result.json`, and its outcome."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxdigits.training import provenance
from flaxdigits.training.checkpoints import CheckpointRecord
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.parallel import is_writer
from flaxdigits.training.predictions import Predictions
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.scores import Scores, scores_by_name
from flaxdigits.training.state import TrainState, count_parameters
from flaxdigits.training.step import Norms

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a run: complete, paused or diverged.

    Attributes:
      step: the number of steps that are completed and saved.
      total_steps: the number of steps of the whole run.
      result: the content of `result.json`, or None if the run was paused or diverged.
      signal: the signal that paused the run, or None.
      diverged: the error message if the loss or the state was not finite, or None.
    """

    step: int
    total_steps: int
    result: dict[str, Any] | None
    signal: int | None = None
    diverged: str | None = None


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run that has been evaluated, for its report.

    Attributes:
      experiment: the immutable parts of the run.
      state: the train state that was evaluated.
      folder: the run folder.
      result: the content of `result.json`, which is written after the report.
      predictions: the predictions for the validation and the test split.
    """

    experiment: Experiment
    state: TrainState
    folder: RunFolder
    result: Mapping[str, Any]
    predictions: Mapping[str, Predictions]


# Writes the report of a finished run, and returns its figures by name.
ReportWriter = Callable[[FinishedRun], Mapping[str, Path]]


def no_report(run: FinishedRun) -> Mapping[str, Path]:
    """Writes no report and returns no figures; it is a `ReportWriter`."""
    return {}


class Clocks:
    """The seconds that a run has spent in each activity, over all of its sessions.

    Args:
      record: the record of the checkpoint from which the run is resumed.
    """

    def __init__(self, record: CheckpointRecord) -> None:
        self.compiling = record.seconds_compiling
        self.training = record.seconds_training
        self.evaluating = record.seconds_evaluating

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Adds the time of a block to `evaluating`."""
        start = time.perf_counter()
        yield
        self.evaluating += time.perf_counter() - start

    def record(self, validation: Scores | None) -> CheckpointRecord:
        """Returns the record of a checkpoint.

        Args:
          validation: the scores of the validation split; None if it was not evaluated.
        """
        return CheckpointRecord(
            self.compiling, self.training, self.evaluating,
            validation.accuracy if validation else None, validation.loss if validation else None)


def metrics_row(
    experiment: Experiment, state: TrainState, step: int, clocks: Clocks,
    validation: Scores | None, norms: Norms | None,
) -> dict[str, Any]:
    """Returns a row of `metrics.jsonl`; norms that are not finite are left out."""
    loss, accuracy = state.log_sums.means()
    learning_rate: Any = experiment.schedule(step - 1)
    row = {
        "step": step, "epoch": -(-step // experiment.steps_per_epoch),
        "train_loss": loss, "train_accuracy": accuracy,
        "learning_rate": float(learning_rate),
        "seconds_training": clocks.training}
    if validation:
        row |= {"validation_loss": validation.loss, "validation_accuracy": validation.accuracy}
        row |= {f"validation_{name}": value for name, value in validation.others.items()}
    if norms:
        row |= {f"{name}_norm": float(value) for name, value in vars(norms).items()
                if np.isfinite(value)}
    return row


def run_result(
    experiment: Experiment, state: TrainState, step: int, clocks: Clocks,
    scores: Mapping[str, Scores | None], evaluated_step: int, running_accuracy: float,
) -> dict[str, Any]:
    """Returns the content of `result.json`.

    Args:
      experiment: the immutable parts of the run.
      state: the evaluated train state.
      step: the number of steps of the run.
      clocks: the times of the run.
      scores: the metrics of each split; None if there is no such split.
      evaluated_step: the step of the evaluated train state.
      running_accuracy: the training accuracy over the last epoch, while the weights changed.
    """
    config, dataset = experiment.config, experiment.dataset
    result: dict[str, Any] = {
        "experiment": config.experiment, "dataset": dataset.name, "data_source": dataset.source,
        "split": config.data.split, "seed": config.seed,
        "parameters": count_parameters(state.params), "steps": step,
        "epochs": step / experiment.steps_per_epoch,
        "checkpoint": config.checkpoint.select, "checkpoint_step": evaluated_step}
    for split, values in scores.items():
        result |= scores_by_name(split, values, config.evaluate.metrics)
    return result | {
        "train_accuracy_running": running_accuracy,
        "seconds_compiling": clocks.compiling,
        "seconds_training": clocks.training,
        "seconds_evaluating": clocks.evaluating,
        "steps_per_second": step / clocks.training,
        "device": provenance.device_name(),
        "deterministic": provenance.is_deterministic(config.train.deterministic)}


def log_resumption(experiment: Experiment, workdir: Path, step: int) -> None:
    """Logs the step at which a run resumes."""
    if is_writer():
        _log.info("%s: resuming at step %s of %s (epoch %d)", workdir, f"{step:,}",
                  f"{experiment.total_steps:,}", -(-step // experiment.steps_per_epoch))


def diverged_message(part: str, step: int, last_saved: int | None) -> str:
    """Returns the error message of a run that has diverged.

    Args:
      part: the part of the run that is not finite, such as `the loss`.
      step: the step at which it was found.
      last_saved: the step of the newest checkpoint; None if there is none.
    """
    checkpoint = ("nothing was saved yet" if last_saved is None else
                  f"the checkpoint of step {last_saved} stays")
    return (f"{part} is not finite at step {step}: {checkpoint}; try a smaller "
            "optimizer.learning_rate, or optimizer.clip_norm=1, in another workdir")
