"""The one training loop: prepare, resume, train, save, score, report."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxdigits.config import ExperimentConfig, validate
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.predictions import Predictions
from flaxdigits.evaluation.scores import Scores
from flaxdigits.training import provenance
from flaxdigits.training.checkpoints import Checkpoints
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.parallel import agree, check_same_everywhere, is_writer
from flaxdigits.training.report import HELD_OUT, report_or_note
from flaxdigits.training.run import Run
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.trackers import Tracker, Trackers

# A compiled call takes about this long: short enough to stop or report soon, long enough that
# the return to Python costs nothing.
SECONDS_PER_CALL = 0.5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
      step: how many steps are done and saved.
      total_steps: of the whole run.
      result: what `result.json` holds, or None if the run was paused.
      signal: the signal that paused it, if one did.
    """

    step: int
    total_steps: int
    result: dict[str, Any] | None
    signal: int | None = None


def train(
    config: ExperimentConfig, dataset: Dataset, workdir: Path,
    trackers: Sequence[Tracker] = (),
) -> Outcome:
    """Trains a run to its end, or on from where it stopped, scores it and writes its report.

    Args:
      config: of the experiment.
      dataset: that `flaxdigits.data.dataset.load_dataset` gave for `config.data`.
      workdir: the run folder; see `flaxdigits.training.run_folder`.
      trackers: told how it goes; see `flaxdigits.training.trackers`.

    Raises:
      FlaxdigitsError: if the config does not fit the data or the folder, a file cannot be read or
        written, or the loss stops being finite; what was saved before stays.
    """
    folder = RunFolder(Path(workdir), is_writer())
    run = Run(validate(config), dataset)
    check_same_everywhere("config", config)
    check_same_everywhere("data", dataset.fingerprint)
    check_same_everywhere("run folder", folder.contents())
    if config.train.init_from is not None and not folder.has_checkpoints():
        run.take_weights(config.train.init_from)
    folder.start(config, {
        "data": {"dataset": dataset.name, "source": dataset.source,
                 "fingerprint": dataset.fingerprint},
        "versions": provenance.versions(), "git_commit": provenance.git_commit()})
    done = folder.result()
    if done is not None:
        return Outcome(done["steps"], run.total_steps, done)
    folder.check_writable()
    checkpoints = Checkpoints(folder.checkpoints, config.checkpoint.keep)
    told = Trackers(trackers if is_writer() else ())
    try:
        with Interrupts() as interrupts:
            loop = Loop(run, checkpoints, folder, told, interrupts)
            loop.resume()
            with told.running(config, folder.path, run.step, run.total_steps):
                loop.train()
                result = loop.result()
        return Outcome(run.step, run.total_steps, result, loop.signal() or None)
    finally:
        checkpoints.close()


@dataclasses.dataclass(frozen=True)
class Loop:
    """A run and what hangs on it: where it is saved and told of, and what may stop it."""

    run: Run
    checkpoints: Checkpoints
    folder: RunFolder
    trackers: Trackers
    interrupts: Interrupts

    def signal(self) -> int:
        """The signal that any of the processes has received, or 0."""
        return agree(self.interrupts.received or 0, np.max)

    def resume(self) -> None:
        """Goes back to the last checkpoint, if there is one."""
        run, step = self.run, self.checkpoints.last()
        if step is not None:
            run.state = self.checkpoints.restore(step, run.state)
            run.record = self.checkpoints.record(step)
            run.step = step
        self.folder.cut_metrics(run.step)

    def train(self) -> None:
        """Trains to the end, to `train.stop_after` or to a signal."""
        run = self.run
        end = min(run.total_steps, run.config.train.stop_after or run.total_steps)
        if run.step >= end:
            return
        steps = run.compile()
        epoch, rate = None, 1.0
        while run.step < end and not self.signal():
            if epoch != run.step // run.steps_per_epoch:
                epoch = run.step // run.steps_per_epoch
                order = run.order(epoch)
            count = min(self._steps_to_next_event(), end - run.step)
            count = min(count, agree(max(1, int(SECONDS_PER_CALL * rate)), np.min))
            start = time.perf_counter()
            report = steps(order, count)
            seconds = time.perf_counter() - start
            run.clock(seconds_training=seconds)
            rate = count / seconds
            if report.failed >= 0:
                raise FlaxdigitsError(self._diverged(int(report.failed)))
            run.step += count
            self.trackers.advance(run.step, rate, *report.sums.means())
            self._events()
        self._save()

    def result(self) -> dict[str, Any] | None:
        """Scores every split, writes `result.json`, then the report; None if the run was paused."""
        run = self.run
        if run.step < run.total_steps:
            return None
        step, running = run.step, run.state.epoch_sums.means()[1]
        if run.config.checkpoint.report == "best":
            step = self.checkpoints.best()
            run.state = self.checkpoints.restore(step, run.state)
        scores: dict[str, Scores | None] = {}
        held_out: dict[str, Predictions] = {}
        for split in ("train", "validation", "test"):
            if self.signal():
                return None
            predictions = run.predict(split)
            scores[split] = run.scores_of(predictions)
            if split in HELD_OUT and predictions is not None:
                held_out[split] = predictions
        result = run.figures(scores, step, running)
        self.checkpoints.wait()
        self.folder.write_json("result.json", result)
        self.trackers.finish(result, report_or_note(run, self.folder, held_out))
        return result

    def _steps_to_next_event(self) -> int:
        run, config = self.run, self.run.config
        every = [run.steps_per_epoch, config.train.log_every, config.evaluate.every_steps,
                 config.checkpoint.every_steps]
        return min(step - run.step % step for step in every if step)

    def _events(self) -> None:
        """Writes the row, scores the validation split and saves, each when it is due."""
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
            self._save(validation)

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
        return row

    def _save(self, validation: Scores | None = None) -> None:
        if not self.run.is_finite():
            raise FlaxdigitsError(self._diverged(self.run.step))
        record = dataclasses.replace(
            self.run.record,
            validation_accuracy=validation.accuracy if validation else None,
            validation_loss=validation.loss if validation else None)
        self.checkpoints.save(self.run.step, self.run.state, record)

    def _diverged(self, step: int) -> str:
        last = self.checkpoints.last()
        kept = "nothing was saved yet" if last is None else f"the checkpoint of step {last} stays"
        return (f"the loss is not finite at step {step}: {kept}; try a smaller "
                "optimizer.learning_rate, or optimizer.clip_norm=1, in another --workdir")
