"""The one training loop: prepare, resume, train, save, score, report."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxdigits.config import ExperimentConfig, validate
from flaxdigits.data.batches import BatchPlan, epoch_order
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.logits import LogitsProgram
from flaxdigits.evaluation.scores import Scores, flat, score
from flaxdigits.models import build_model
from flaxdigits.training import provenance
from flaxdigits.training.checkpoints import Checkpoints, Record
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.optimizers import create_optimizer, create_schedule
from flaxdigits.training.parallel import Devices, agree, all_places, is_writer, parallel_steps
from flaxdigits.training.progress import ProgressReport, Silence
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.state import (
    TrainState,
    count_parameters,
    create_train_state,
    init_variables,
    stream,
)
from flaxdigits.training.step import Examples, Steps, Streams, TrainTask
from flaxdigits.training.weights import saved_variables

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
    progress: ProgressReport | None = None,
) -> Outcome:
    """Trains a run to its end, or on from where it stopped, and scores it.

    Args:
      config: of the experiment.
      dataset: that `flaxdigits.data.dataset.load_dataset` gave for `config.data`.
      workdir: the run folder; see `flaxdigits.training.run_folder`.
      progress: told of every step; None: nobody is.

    Raises:
      FlaxdigitsError: if the config does not fit the data or the folder, a file cannot be read or
        written, or the loss stops being finite; what was saved before stays.
    """
    folder = RunFolder(Path(workdir), is_writer())
    run = Run(validate(config), dataset)
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
    progress = progress or Silence()
    try:
        with Interrupts() as interrupts:
            run.restore(checkpoints, folder)
            stopped_by = run.train(checkpoints, folder, interrupts, progress)
        if run.step < run.total_steps:
            return Outcome(run.step, run.total_steps, None, stopped_by)
        result = run.result(checkpoints)
        checkpoints.wait()
        folder.write_json("result.json", result)
        return Outcome(run.step, run.total_steps, result)
    finally:
        progress.stop()
        checkpoints.close()


class Run:
    """A run in memory: its program, its state and its clocks."""

    def __init__(self, config: ExperimentConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        self.splits = split_indices(config.data, dataset)
        self.devices = Devices.all()
        train_config, model = config.train, build_model(config.model, len(dataset.class_names))
        plan = BatchPlan(len(self.splits["train"]), train_config.batch_size, self.devices.count)
        self.total_steps = train_config.steps or train_config.epochs * plan.steps_per_epoch
        if self.total_steps >= 2**31:
            raise FlaxdigitsError(
                f"train.epochs={train_config.epochs} makes {self.total_steps} steps; "
                "2,147,483,647 are the most")
        self.schedule = create_schedule(config.optimizer, self.total_steps)
        optimizer = create_optimizer(config.optimizer, self.schedule)
        self.task = TrainTask(config, model, optimizer, plan)
        self.state = self._state_of(
            init_variables(model, config.seed, dataset.images.shape[1:]))
        self.examples = self.devices.replicate(Examples(dataset.images, dataset.labels))
        self.logits = LogitsProgram(
            model, config.data.preprocessing, config.evaluate.batch_size, self.devices)
        self.step = 0
        self.record = Record()

    def take_weights(self, path: str) -> None:
        """Starts from the last weights of another run in place of fresh ones."""
        fresh = {"params": self.state.params, **self.state.model_state}
        self.state = self._state_of(saved_variables(path, fresh))

    def restore(self, checkpoints: Checkpoints, folder: RunFolder) -> None:
        """Goes back to the last checkpoint, if there is one."""
        step = checkpoints.last()
        if step is not None:
            self.state = checkpoints.restore(step, self.state)
            self.record = checkpoints.record(step)
            self.step = step
        folder.cut_metrics(self.step)

    def train(
        self, checkpoints: Checkpoints, folder: RunFolder, interrupts: Interrupts,
        progress: ProgressReport,
    ) -> int | None:
        """Trains to the end, to `train.stop_after` or to a signal, which is returned."""
        end = min(self.total_steps, self.config.train.stop_after or self.total_steps)
        if self.step >= end:
            return None
        steps = self._compile()
        progress.start(self.step, self.total_steps)
        order, epoch, rate = None, None, None
        while self.step < end:
            if epoch != self.step // self.task.plan.steps_per_epoch:
                epoch = self.step // self.task.plan.steps_per_epoch
                order = self._order(epoch)
            count = min(self._steps_to_next_event(), end - self.step)
            count = min(count, agree(max(1, int(SECONDS_PER_CALL * (rate or 1))), np.min))
            start = time.perf_counter()
            report = steps(order, count)
            seconds = time.perf_counter() - start
            self._clock(seconds_training=seconds)
            rate = count / seconds
            if report.failed >= 0:
                raise FlaxdigitsError(self._diverged(int(report.failed), checkpoints))
            self.step += count
            progress.advance(self.step, rate, *report.sums.means())
            signal = agree(interrupts.received or 0, np.max)
            self._events(checkpoints, folder, progress, is_last=bool(signal) or self.step == end)
            if signal:
                return signal
        return None

    def result(self, checkpoints: Checkpoints) -> dict[str, Any]:
        """Scores every split and gathers the figures."""
        step = self.step
        if self.config.checkpoint.report == "best":
            step = checkpoints.best()
            self.state = checkpoints.restore(step, self.state)
        running = self.state.epoch_sums.means()[1] if step == self.step else None
        scores = {name: self.score(name) for name in ("train", "validation", "test")}
        config, record = self.config, self.record
        figures: dict[str, Any] = {
            "experiment": config.experiment, "dataset": self.dataset.name,
            "data_source": self.dataset.source, "split": config.data.split, "seed": config.seed,
            "parameters": count_parameters(self.state.params), "steps": self.step,
            "epochs": self.step / self.task.plan.steps_per_epoch,
            "checkpoint": config.checkpoint.report, "checkpoint_step": step}
        for name, value in scores.items():
            figures |= flat(name, value)
        return figures | {
            "train_accuracy_running": running,
            "seconds_compiling": record.seconds_compiling,
            "seconds_training": record.seconds_training,
            "seconds_evaluating": record.seconds_evaluating,
            "steps_per_second": self.step / record.seconds_training,
            "device": provenance.device_name(),
            "deterministic": provenance.is_deterministic(config.train.deterministic)}

    def _state_of(self, variables: dict[str, Any]) -> TrainState:
        return self.devices.replicate(create_train_state(
            variables, self.task.optimizer, self.config.train.ema_decay))

    def score(self, split: str) -> Scores | None:
        """The figures of a split as the state stands; None if there is no such split."""
        if split not in self.splits:
            return None
        start = time.perf_counter()
        index = self.splits[split]
        logits = self.logits(self.state.variables(), self.examples.images, index)
        scores = score(logits, self.dataset.labels[index], self.config.train)
        self._clock(seconds_evaluating=time.perf_counter() - start)
        return scores

    def _compile(self) -> Any:
        """The steps as a function of the order and a count, which waits and keeps the state."""
        start = time.perf_counter()
        places = all_places(self.task, self.devices)
        replicate = self.devices.replicate
        streams = replicate(Streams.of(self.config.seed))
        compiled = parallel_steps(self.task, self.devices).lower(
            self.state, self.examples, self._order(0), places, streams,
            replicate(np.int32(1))).compile()
        self._clock(seconds_compiling=time.perf_counter() - start)

        def steps(order: jax.Array, count: int) -> Steps:
            self.state, report = compiled(
                self.state, self.examples, order, places, streams, replicate(np.int32(count)))
            return jax.device_get(report)

        return steps

    def _order(self, epoch: int) -> jax.Array:
        index = self.splits["train"].astype(np.int32)
        return self.devices.replicate(
            np.asarray(epoch_order(stream(self.config.seed, "order"), epoch, index)))

    def _steps_to_next_event(self) -> int:
        every = [self.task.plan.steps_per_epoch, self.config.train.log_every,
                 self.config.evaluate.every_steps, self.config.checkpoint.every_steps]
        return min(step - self.step % step for step in every if step)

    def _events(
        self, checkpoints: Checkpoints, folder: RunFolder, progress: ProgressReport, is_last: bool
    ) -> None:
        """Writes the row, scores the validation split and saves, each when it is due."""
        config, per_epoch = self.config, self.task.plan.steps_per_epoch

        def is_due(every: int | None) -> bool:
            return self.step % (every or per_epoch) == 0

        is_done = self.step == self.total_steps
        is_logged = is_done or is_due(config.train.log_every) or is_due(per_epoch)
        validation = None
        if "validation" in self.splits and (is_done or is_due(config.evaluate.every_steps)):
            validation = self.score("validation")
        if is_logged or validation:
            row = self._row(validation)
            folder.append("metrics.jsonl", row)
            progress.row(row)
        if is_last or validation or is_due(config.checkpoint.every_steps):
            self._save(checkpoints, validation)

    def _row(self, validation: Scores | None) -> dict[str, Any]:
        loss, accuracy = self.state.log_sums.means()
        row = {
            "step": self.step, "epoch": -(-self.step // self.task.plan.steps_per_epoch),
            "train_loss": loss, "train_accuracy": accuracy,
            "learning_rate": float(self.schedule(self.step - 1)),
            "seconds_training": self.record.seconds_training}
        if validation:
            row |= {"validation_loss": validation.loss, "validation_accuracy": validation.accuracy}
        return row

    def _save(self, checkpoints: Checkpoints, validation: Scores | None) -> None:
        if not bool(_all_finite((self.state.params, self.state.ema))):
            raise FlaxdigitsError(self._diverged(self.step, checkpoints))
        record = dataclasses.replace(
            self.record,
            validation_accuracy=validation.accuracy if validation else None,
            validation_loss=validation.loss if validation else None)
        checkpoints.save(self.step, self.state, record)

    def _diverged(self, step: int, checkpoints: Checkpoints) -> str:
        last = checkpoints.last()
        kept = "nothing was saved yet" if last is None else f"the checkpoint of step {last} stays"
        return (f"the loss is not finite at step {step}: {kept}; try a smaller "
                "optimizer.learning_rate, or optimizer.clip_norm=1, in another --workdir")

    def _clock(self, **seconds: float) -> None:
        added = {name: getattr(self.record, name) + value for name, value in seconds.items()}
        self.record = dataclasses.replace(self.record, **added)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
