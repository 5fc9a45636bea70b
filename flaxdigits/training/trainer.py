"""Trains one run. From top to bottom: restore, train, evaluate, save, finish."""

from collections.abc import Generator
from typing import Any

from flaxdigits.datasets import SPLITS
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.training.checkpoints import CheckpointRecord, Checkpoints
from flaxdigits.training.experiment import Experiment, non_finite_part
from flaxdigits.training.interrupts import Interrupts, received_signal
from flaxdigits.training.predictions import Predictions, predictions_file
from flaxdigits.training.program import StepReply, StepRequest
from flaxdigits.training.results import (
    Clocks,
    FinishedRun,
    Outcome,
    ReportWriter,
    diverged_message,
    log_resumption,
    metrics_row,
    run_result,
)
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.selection import checkpoint_writer, warn_if_best_is_missing
from flaxdigits.training.state import TrainState
from flaxdigits.training.trackers import Trackers


class NotFinite(Exception):
    """A part of the run is NaN or infinite.

    Args:
      part: the part, such as `the loss`.
      step: the step at which it was found.
    """

    def __init__(self, part: str, step: int) -> None:
        super().__init__(part, step)
        self.part, self.step = part, step


def train_run(
    experiment: Experiment, folder: RunFolder, trackers: Trackers, interrupts: Interrupts,
    initial_variables: dict[str, Any] | None, write_report: ReportWriter,
    progress: Progress = NO_PROGRESS,
) -> Generator[StepRequest, StepReply, Outcome]:
    """Trains a run until it is complete, is paused by `train.stop_after` or a signal, or diverges.

    This is a generator, so that one compiled call can advance several runs: it yields each request
    for train steps, receives the reply by `send`, and finally returns the outcome of the run.

    Args:
      experiment: the immutable parts of the run.
      folder: the run folder, which the caller has locked.
      trackers: the trackers to call.
      interrupts: the signals that pause the run.
      initial_variables: the variables from which a run without checkpoints starts; None: new
        variables are initialized.
      write_report: called before `result.json` is written.
      progress: notified when the state is restored or initialized, when a split is evaluated, and
        when the report is written.

    Raises:
      FlaxdigitsError: if all checkpoints are damaged or belong to another run, if a file cannot be
        read or written, or if the run folder was moved during training.
    """
    config, total_steps = experiment.config, experiment.total_steps
    end = min(total_steps, config.train.stop_after or total_steps)
    epoch_steps, log_every = experiment.steps_per_epoch, config.train.log_every
    evaluate_every = config.evaluate.every_steps or epoch_steps
    save_every = config.checkpoint.every_steps or epoch_steps
    with checkpoint_writer(folder, config.checkpoint.keep, experiment.recorded()) as checkpoints:

        # Restore the newest checkpoint, or start.
        verb = "restoring" if checkpoints.steps() else "initializing"
        with progress.stage(f"{verb} the train state"):
            state, clocks = _restore(experiment, folder, checkpoints, initial_variables)
        step, epoch, order = int(state.step), None, None

        with trackers.running(config, folder.path, step, total_steps):
            try:
                while step < end and not received_signal(interrupts):

                    # Train until the next step at which to log, evaluate, save or begin an epoch.
                    # The caller (`RunGroup` in runs.py) executes the requested steps with a
                    # compiled `TrainProgram`.
                    if order is None or step // epoch_steps != epoch:
                        epoch = step // epoch_steps
                        order = experiment.epoch_indices(epoch)
                    intervals = (epoch_steps, log_every, evaluate_every, save_every)
                    reply = yield StepRequest(
                        config.seed, step, state, order,
                        max_steps=min(
                            end - step, *(every - step % every for every in intervals)))
                    state = reply.state
                    clocks.compiling += reply.seconds_compiling
                    clocks.training += reply.seconds_training
                    if reply.metrics.first_nonfinite_step >= 0:
                        raise NotFinite("the loss", int(reply.metrics.first_nonfinite_step))
                    step = int(state.step)
                    is_last = step == total_steps
                    loss, accuracy = reply.metrics.sums.means()
                    trackers.advance(step, reply.steps_per_second, loss, accuracy)

                    # Evaluate.
                    validation = None
                    if is_last or step % evaluate_every == 0:
                        with clocks.evaluation():
                            validation = experiment.compute_metrics(
                                experiment.predict(state, "validation", progress))

                    # Log.
                    if is_last or validation or step % log_every == 0 or step % epoch_steps == 0:
                        row = metrics_row(
                            experiment, state, step, clocks, validation, reply.metrics.norms)
                        folder.append("metrics.jsonl", row)
                        trackers.row(row)

                    # Save.
                    if validation or step % save_every == 0:
                        _save(folder, checkpoints, step, state, clocks.record(validation))
                # The run is complete or paused, and its last step may not be saved yet.
                _save(folder, checkpoints, step, state, clocks.record(None))

                # Finish.
                result = None
                if step == total_steps:
                    result = _finish(experiment, folder, checkpoints, trackers, interrupts,
                                     write_report, state, step, clocks, progress)
            except NotFinite as error:
                message = diverged_message(error.part, error.step, checkpoints.last())
                folder.write_json("diverged.json", {"step": error.step, "message": message})
                return Outcome(step, total_steps, None, diverged=message)
        signal = None if result else (received_signal(interrupts) or None)  # 0: no signal
        return Outcome(step, total_steps, result, signal)


def _restore(
    experiment: Experiment, folder: RunFolder, checkpoints: Checkpoints,
    initial_variables: dict[str, Any] | None,
) -> tuple[TrainState, Clocks]:
    """Restores the newest intact checkpoint, or returns the initial state if there is none.

    Newer checkpoints, which are damaged, are reported in a warning and deleted, and their steps
    are trained again.

    Raises:
      FlaxdigitsError: if all checkpoints are damaged, or belong to another run. In this case none
        is deleted.
    """
    if not checkpoints.steps():
        folder.truncate_metrics(0)
        return experiment.initial_state(initial_variables), Clocks(CheckpointRecord())
    target = experiment.state_shapes
    step, state = checkpoints.restore_newest_intact(
        lambda step: checkpoints.restore(step, target))
    checkpoints.discard([newer for newer in checkpoints.steps() if newer > step])
    folder.truncate_metrics(step)
    log_resumption(experiment, folder.path, step)
    return state, Clocks(checkpoints.record(step))


def _save(
    folder: RunFolder, checkpoints: Checkpoints, step: int, state: TrainState,
    record: CheckpointRecord,
) -> None:
    """Starts saving a checkpoint, unless this step has one already.

    Raises:
      NotFinite: if a value of the state is not finite.
      FlaxdigitsError: if the checkpoint cannot be saved, or the folder was moved.
    """
    if step in checkpoints.steps():
        return
    part = non_finite_part(state)
    if part is not None:
        raise NotFinite(part, step)
    folder.check_present()
    checkpoints.save(step, state, record)


def _finish(
    experiment: Experiment, folder: RunFolder, checkpoints: Checkpoints, trackers: Trackers,
    interrupts: Interrupts, write_report: ReportWriter, state: TrainState, step: int,
    clocks: Clocks, progress: Progress,
) -> dict[str, Any] | None:
    """Evaluates every split, and writes the predictions, the report and, last, `result.json`.

    A run that is killed before `result.json` is written repeats this when it is resumed.

    Returns:
      The content of `result.json`, or None after a signal.
    """
    evaluated_step, running_accuracy = step, state.epoch_sums.means().accuracy
    if experiment.config.checkpoint.select == "best":
        best = checkpoints.best()
        assert best is not None  # the last step, at least, has been evaluated
        evaluated_step = best
        warn_if_best_is_missing(folder, checkpoints, evaluated_step)
        state = checkpoints.restore(evaluated_step, experiment.state_shapes)
    predictions: dict[str, Predictions | None] = {}
    for split in SPLITS:
        if received_signal(interrupts):
            return None
        with clocks.evaluation():
            predictions[split] = experiment.predict(state, split, progress)
    scores = {split: experiment.compute_metrics(values) for split, values in predictions.items()}
    result = run_result(experiment, state, step, clocks, scores, evaluated_step, running_accuracy)
    not_trained_on = {split: values for split, values in predictions.items()
                      if split != "train" and values is not None}
    checkpoints.wait()
    folder.write("predictions.npz",
                 predictions_file(not_trained_on, evaluated_step, experiment.dataset))
    with progress.stage("writing the report"):
        figures = write_report(FinishedRun(experiment, state, folder, result, not_trained_on))
    folder.write_json("result.json", result)
    trackers.finish(result, dict(figures))
    return result
