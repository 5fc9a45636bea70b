"""The trainer of one run, read from top to bottom: restore, train, evaluate, save, finish."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxdigits.config import to_dict
from flaxdigits.datasets import PARTS
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.training import provenance
from flaxdigits.training.checkpoints import Checkpoints, RunRecord
from flaxdigits.training.experiment import Experiment, non_finite_part
from flaxdigits.training.identity import run_identity
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.parallel import all_reduce
from flaxdigits.training.predictions import Predictions, predictions_file
from flaxdigits.training.program import StepReply, StepRequest
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.scores import Scores, flat
from flaxdigits.training.selection import warn_if_best_is_missing
from flaxdigits.training.state import TrainState, count_parameters
from flaxdigits.training.trackers import Trackers


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the training of a run ended.

    Attributes:
      step: the number of steps that are done and saved.
      total_steps: the length of the run.
      result: the content of `result.json`, or None if the run was paused or diverged.
      signal: the signal that paused it, if one did.
      diverged: the error message if its loss or its state stopped being finite.
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
      experiment: what was trained.
      state: that was evaluated.
      folder: of the run.
      result: the content of `result.json`, which is written after the report.
      predictions: of the splits that were not trained on.
    """

    experiment: Experiment
    state: TrainState
    folder: RunFolder
    result: Mapping[str, Any]
    predictions: Mapping[str, Predictions]


# Writes the report of a finished run, and returns its figures by name.
ReportWriter = Callable[[FinishedRun], Mapping[str, Path]]


class NotFinite(Exception):
    """A part of the run is NaN or infinite.

    Args:
      part: of the run, such as `the loss`.
      step: at which it was found.
    """

    def __init__(self, part: str, step: int) -> None:
        super().__init__(part, step)
        self.part, self.step = part, step


def train_run(
    experiment: Experiment, folder: RunFolder, trackers: Trackers, interrupts: Interrupts,
    initial_variables: dict[str, Any] | None, write_report: ReportWriter,
    progress: Progress = NO_PROGRESS,
) -> Generator[StepRequest, StepReply, Outcome]:
    """Trains one run to its end, to `train.stop_after` or to a signal.

    It is a generator, so that one compiled call can advance several runs: it yields a request for
    the train steps that it needs, is sent the state after them, and returns its outcome.

    Args:
      experiment: what is trained.
      folder: of the run; locked.
      trackers: receive callbacks.
      interrupts: the signals that pause the run.
      initial_variables: of the model in place of fresh ones, for a run without checkpoints.
      write_report: called before `result.json` is written.
      progress: is notified of restoring, evaluating and the report.
    """
    config, total_steps = experiment.config, experiment.total_steps
    end = min(total_steps, config.train.stop_after or total_steps)
    epoch_steps, log_every = experiment.steps_per_epoch, config.train.log_every
    evaluate_every = config.evaluate.every_steps or epoch_steps
    save_every = config.checkpoint.every_steps or epoch_steps
    with _opened(experiment, folder) as checkpoints:

        # Restore the newest checkpoint, or start.
        with progress.stage("loading the train state"):
            state, clocks = _restore(experiment, folder, checkpoints, initial_variables)
        step, epoch, order = int(state.step), None, None

        with trackers.running(config, folder.path, step, total_steps):
            try:
                while step < end and not received_signal(interrupts):

                    # Train up to the next step at which something is due.
                    if step // epoch_steps != epoch:
                        epoch = step // epoch_steps
                        order = experiment.order(epoch)
                    events = (epoch_steps, log_every, evaluate_every, save_every)
                    reply = yield StepRequest(
                        config.seed, step, state, order,
                        max_count=min(end - step, *(every - step % every for every in events)))
                    state = reply.state
                    clocks.compiling += reply.seconds_compiling
                    clocks.training += reply.seconds_training
                    if reply.metrics.failed >= 0:
                        raise NotFinite("the loss", int(reply.metrics.failed))
                    step = int(state.step)
                    is_last = step == total_steps
                    trackers.advance(step, reply.rate, *reply.metrics.sums.means())

                    # Evaluate.
                    validation = None
                    if is_last or step % evaluate_every == 0:
                        with clocks.evaluation():
                            validation = experiment.score(
                                experiment.predict(state, "validation", progress))

                    # Log.
                    if is_last or validation or step % log_every == 0 or step % epoch_steps == 0:
                        row = _row(experiment, state, step, clocks, validation)
                        folder.append("metrics.jsonl", row)
                        trackers.row(row)

                    # Save.
                    if validation or step % save_every == 0:
                        _save(folder, checkpoints, step, state, clocks.record(validation))
                _save(folder, checkpoints, step, state, clocks.record(None))

                # Finish.
                result = None
                if step == total_steps:
                    result = _finish(experiment, folder, checkpoints, trackers, interrupts,
                                     write_report, state, step, clocks, progress)
            except NotFinite as error:
                message = _write_diverged(folder, checkpoints, error)
                return Outcome(step, total_steps, None, diverged=message)
        signal = None if result else received_signal(interrupts) or None
        return Outcome(step, total_steps, result, signal)


class Clocks:
    """The seconds that a run has spent, over all its processes.

    Args:
      record: of the checkpoint that is resumed.
    """

    def __init__(self, record: RunRecord) -> None:
        self.compiling = record.seconds_compiling
        self.training = record.seconds_training
        self.evaluating = record.seconds_evaluating

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Adds the time of a block to `evaluating`."""
        start = time.perf_counter()
        yield
        self.evaluating += time.perf_counter() - start

    def record(self, validation: Scores | None) -> RunRecord:
        """Returns the record of a checkpoint, with the scores of the validation split if any."""
        return RunRecord(
            self.compiling, self.training, self.evaluating,
            validation.accuracy if validation else None, validation.loss if validation else None)


def received_signal(interrupts: Interrupts) -> int:
    """Returns the signal that any of the processes has received, or 0."""
    return all_reduce(interrupts.received or 0, np.max)


@contextlib.contextmanager
def _opened(experiment: Experiment, folder: RunFolder) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run to write them, and waits in the end until they are saved."""
    folder.check_present()  # before Orbax creates the folder of the checkpoints in it
    checkpoints = Checkpoints(folder.checkpoints, experiment.config.checkpoint.keep,
                              run=_identity(experiment, folder))
    try:
        yield checkpoints
    finally:
        try:
            checkpoints.close()
        finally:
            folder.remove_if_recreated()


def _identity(experiment: Experiment, folder: RunFolder) -> str:
    """Returns the run's identity as its config.json records it.

    A process that does not write may not see that file yet where it was just written.
    """
    if (folder.path / "config.json").exists():
        return run_identity(folder.recorded())
    return run_identity({
        "config": to_dict(experiment.config), "data": experiment.dataset.identity(),
        "teacher": experiment.teacher_digest})


def _restore(
    experiment: Experiment, folder: RunFolder, checkpoints: Checkpoints,
    initial_variables: dict[str, Any] | None,
) -> tuple[TrainState, Clocks]:
    """Restores the newest checkpoint that is intact, or returns the initial state if none exists.

    Newer ones, which are damaged, are named in a warning and deleted, and their steps are trained
    again.

    Raises:
      FlaxdigitsError: if none is intact, or they are of another run; nothing is deleted then.
    """
    if not checkpoints.steps():
        folder.cut_metrics(0)
        return experiment.initial_state(initial_variables), Clocks(RunRecord())
    target = experiment.state_shapes
    step, state = checkpoints.restore_newest_intact(
        lambda step: checkpoints.restore(step, target))
    checkpoints.discard([newer for newer in checkpoints.steps() if newer > step])
    folder.cut_metrics(step)
    return state, Clocks(checkpoints.record(step))


def _row(
    experiment: Experiment, state: TrainState, step: int, clocks: Clocks,
    validation: Scores | None,
) -> dict[str, Any]:
    """Returns a row of `metrics.jsonl`."""
    loss, accuracy = state.log_sums.means()
    row = {
        "step": step, "epoch": -(-step // experiment.steps_per_epoch),
        "train_loss": loss, "train_accuracy": accuracy,
        "learning_rate": float(experiment.schedule(step - 1)),
        "seconds_training": clocks.training}
    if validation:
        row |= {"validation_loss": validation.loss, "validation_accuracy": validation.accuracy}
        row |= {f"validation_{name}": value for name, value in validation.others.items()}
    return row


def _save(
    folder: RunFolder, checkpoints: Checkpoints, step: int, state: TrainState, record: RunRecord
) -> None:
    """Starts saving a checkpoint, unless that step is saved.

    Raises:
      NotFinite: if a value of the state is not finite.
    """
    if step in checkpoints.steps():
        return
    part = non_finite_part(state)
    if part is not None:
        raise NotFinite(part, step)
    folder.check_present()
    checkpoints.save(step, state, record)


def _write_diverged(folder: RunFolder, checkpoints: Checkpoints, error: NotFinite) -> str:
    """Writes `diverged.json` and returns its message."""
    last = checkpoints.last()
    kept = "nothing was saved yet" if last is None else f"the checkpoint of step {last} stays"
    message = (f"{error.part} is not finite at step {error.step}: {kept}; try a smaller "
               "optimizer.learning_rate, or optimizer.clip_norm=1, in another --workdir")
    folder.write_json("diverged.json", {"step": error.step, "message": message})
    return message


def _finish(
    experiment: Experiment, folder: RunFolder, checkpoints: Checkpoints, trackers: Trackers,
    interrupts: Interrupts, write_report: ReportWriter, state: TrainState, step: int,
    clocks: Clocks, progress: Progress,
) -> dict[str, Any] | None:
    """Evaluates every split, writes the predictions, the report and, last of all, `result.json`.

    A run that is killed meanwhile does it again when it is resumed.

    Returns:
      The content of `result.json`, or None after a signal.
    """
    reported_step, running_accuracy = step, state.epoch_sums.means()[1]
    if experiment.config.checkpoint.select == "best":
        reported_step = checkpoints.best()
        warn_if_best_is_missing(folder, checkpoints, reported_step)
        state = checkpoints.restore(reported_step, experiment.state_shapes)
    predictions: dict[str, Predictions | None] = {}
    for split in PARTS:
        if received_signal(interrupts):
            return None
        with clocks.evaluation():
            predictions[split] = experiment.predict(state, split, progress)
    scores = {split: experiment.score(values) for split, values in predictions.items()}
    result = _result(experiment, state, step, clocks, scores, reported_step, running_accuracy)
    held_out = {split: values for split, values in predictions.items()
                if split != "train" and values is not None}
    checkpoints.wait()
    folder.write("predictions.npz",
                 predictions_file(held_out, reported_step, experiment.dataset))
    with progress.stage("writing the report"):
        figures = write_report(FinishedRun(experiment, state, folder, result, held_out))
    folder.write_json("result.json", result)
    trackers.finish(result, dict(figures))
    return result


def _result(
    experiment: Experiment, state: TrainState, step: int, clocks: Clocks,
    scores: Mapping[str, Scores | None], reported_step: int, running_accuracy: float,
) -> dict[str, Any]:
    """Returns the content of `result.json`."""
    config, dataset = experiment.config, experiment.dataset
    result: dict[str, Any] = {
        "experiment": config.experiment, "dataset": dataset.name, "data_source": dataset.source,
        "split": config.data.split, "seed": config.seed,
        "parameters": count_parameters(state.params), "steps": step,
        "epochs": step / experiment.steps_per_epoch,
        "checkpoint": config.checkpoint.select, "checkpoint_step": reported_step}
    for split, values in scores.items():
        result |= flat(split, values, config.evaluate.metrics)
    return result | {
        "train_accuracy_running": running_accuracy,
        "seconds_compiling": clocks.compiling,
        "seconds_training": clocks.training,
        "seconds_evaluating": clocks.evaluating,
        "steps_per_second": step / clocks.training,
        "device": provenance.device_name(),
        "deterministic": provenance.is_deterministic(config.train.deterministic)}
