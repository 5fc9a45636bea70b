"""A run with its folder: it is resumed, saved, evaluated and reported as the loop advances it."""

import dataclasses
from typing import Any

import jax
import numpy as np

from flaxdigits.config import to_dict
from flaxdigits.evaluation.predictions import Predictions
from flaxdigits.evaluation.scores import Scores
from flaxdigits.training.checkpoints import Checkpoints
from flaxdigits.training.identity import run_identity
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.parallel import all_reduce
from flaxdigits.training.report import HELD_OUT, write_report_or_warn
from flaxdigits.training.run import Run
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.selection import warn_if_best_is_missing
from flaxdigits.training.step import Steps
from flaxdigits.training.trackers import Trackers


class SavedRun:
    """A run with its folder, checkpoints and trackers.

    Attributes:
      diverged: the error message once its loss or its state is not finite; it is not trained on.
    """

    def __init__(
        self, run: Run, folder: RunFolder, trackers: Trackers, interrupts: Interrupts
    ) -> None:
        self.run, self.folder, self.trackers = run, folder, trackers
        self.diverged: str | None = None
        self._interrupts = interrupts
        folder.check_present()  # before Orbax creates the folder of the checkpoints in it
        self._checkpoints = Checkpoints(
            folder.checkpoints, run.config.checkpoint.keep, run=_identity(run, folder))
        self._order: tuple[int, jax.Array] | None = None

    def close(self) -> None:
        """Waits until all checkpoints are on disk, and closes them."""
        try:
            self._checkpoints.close()
        finally:
            self.folder.remove_if_recreated()

    def signal(self) -> int:
        """Returns the signal that any of the processes has received, or 0."""
        return all_reduce(self._interrupts.received or 0, np.max)

    def resume(self) -> None:
        """Restores the newest checkpoint that is whole, if there are checkpoints.

        Newer ones, which are damaged, are named in a warning and deleted, and their steps are
        trained again.

        Raises:
          FlaxdigitsError: if none is whole, or they are of another run; nothing is deleted then.
        """
        run, checkpoints = self.run, self._checkpoints
        if checkpoints.steps():
            run.step, run.state = checkpoints.restore_newest_intact(
                lambda step: checkpoints.restore(step, run.state))
            run.record = checkpoints.record(run.step)
            checkpoints.discard([step for step in checkpoints.steps() if step > run.step])
        self.folder.cut_metrics(run.step)

    def is_unfinished(self) -> bool:
        """Returns whether there are steps left to train."""
        return self.diverged is None and self.run.step < self._end()

    def order(self) -> jax.Array:
        """Returns the order of the examples in the current epoch."""
        epoch = self.run.step // self.run.steps_per_epoch
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self.run.order(epoch)
        return self._order[1]

    def steps_to_next_event(self) -> int:
        """Returns the number of steps until an event is due or training ends."""
        run, config = self.run, self.run.config
        every = [run.steps_per_epoch, config.train.log_every, config.evaluate.every_steps,
                 config.checkpoint.every_steps]
        return min(self._end() - run.step, *(step - run.step % step for step in every if step))

    def advance(self, count: int, report: Steps, rate: float, seconds: float) -> None:
        """Records steps that were trained, and handles the events that are due after them.

        Args:
          count: the number of steps.
          report: of the program about them.
          rate: steps per second.
          seconds: the share of this run in the time of the call.
        """
        run = self.run
        run.clock(seconds_training=seconds)
        if report.failed >= 0:
            self._diverge(int(report.failed), "the loss")
            return
        run.step += count
        self.trackers.advance(run.step, rate, *report.sums.means())
        self._events()

    def save(self, validation: Scores | None = None) -> None:
        """Starts saving the current state, unless the run has diverged."""
        if self.diverged is None:
            what = self.run.not_finite()
            if what is not None:
                self._diverge(self.run.step, what)
        if self.diverged is not None:
            return
        record = dataclasses.replace(
            self.run.record,
            validation_accuracy=validation.accuracy if validation else None,
            validation_loss=validation.loss if validation else None)
        self.folder.check_present()
        self._checkpoints.save(self.run.step, self.run.state, record)

    def result(self) -> dict[str, Any] | None:
        """Evaluates every split, writes the report and, last of all, `result.json`.

        A run that is killed meanwhile does it again. Returns None if it was paused or has diverged.
        """
        run = self.run
        if run.step < run.total_steps or self.diverged is not None:
            return None
        step, running = run.step, run.state.epoch_sums.means()[1]
        if run.config.checkpoint.select == "best":
            step = self._checkpoints.best()
            warn_if_best_is_missing(self.folder, self._checkpoints, step)
            run.state = self._checkpoints.restore(step, run.state)
        scores: dict[str, Scores | None] = {}
        held_out: dict[str, Predictions] = {}
        for split in ("train", "validation", "test"):
            if self.signal():
                return None
            predictions = run.predict(split)
            scores[split] = run.scores_of(predictions)
            if split in HELD_OUT and predictions is not None:
                held_out[split] = predictions
        result = run.metrics(scores, step, running)
        self._checkpoints.wait()
        self.folder.check_present()
        figures = write_report_or_warn(run, self.folder, result, held_out)
        self.folder.write_json("result.json", result)
        self.trackers.finish(result, figures)
        return result

    def _end(self) -> int:
        run = self.run
        return min(run.total_steps, run.config.train.stop_after or run.total_steps)

    def _events(self) -> None:
        """Logs metrics, evaluates the validation split and saves, each when it is due."""
        run, config = self.run, self.run.config

        def is_due(every: int | None) -> bool:
            return run.step % (every or run.steps_per_epoch) == 0

        is_done = run.step == run.total_steps
        is_logged = is_done or is_due(config.train.log_every) or is_due(None)
        validation = None
        if is_done or is_due(config.evaluate.every_steps):
            validation = run.score("validation")
        if is_logged or validation:
            row = self._row(validation)
            self.folder.append("metrics.jsonl", row)
            self.trackers.row(row)
        if validation or is_due(config.checkpoint.every_steps):
            self.save(validation)

    def _row(self, validation: Scores | None) -> dict[str, Any]:
        run = self.run
        loss, accuracy = run.state.log_sums.means()
        row = {
            "step": run.step, "epoch": -(-run.step // run.steps_per_epoch),
            "train_loss": loss, "train_accuracy": accuracy,
            "learning_rate": float(run.schedule(run.step - 1)),
            "seconds_training": run.record.seconds_training}
        if validation:
            row |= {"validation_loss": validation.loss, "validation_accuracy": validation.accuracy}
            row |= {f"validation_{name}": value for name, value in validation.others.items()}
        return row

    def _diverge(self, step: int, what: str) -> None:
        last = self._checkpoints.last()
        kept = "nothing was saved yet" if last is None else f"the checkpoint of step {last} stays"
        self.diverged = (
            f"{what} is not finite at step {step}: {kept}; try a smaller "
            "optimizer.learning_rate, or optimizer.clip_norm=1, in another --workdir")
        self.folder.write_json("diverged.json", {"step": step, "message": self.diverged})


def _identity(run: Run, folder: RunFolder) -> str:
    """Returns the run's identity as its config.json records it.

    A process that does not write may not see that file yet where it was just written.
    """
    if (folder.path / "config.json").exists():
        return run_identity(folder.recorded())
    return run_identity({"config": to_dict(run.config), "data": run.dataset.identity()})
