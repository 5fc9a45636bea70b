"""A run in memory: its train state, its data and its metrics."""

import copy
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxdigits.config import ExperimentConfig, TrainConfig
from flaxdigits.data.batches import BatchPlan, epoch_order
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.logits import LogitsProgram
from flaxdigits.evaluation.predictions import Predictions
from flaxdigits.evaluation.scores import Scores, flat, score
from flaxdigits.models import build_model, check_logits
from flaxdigits.training import provenance
from flaxdigits.training.checkpoints import Record
from flaxdigits.training.component_checks import RunShape, check_components
from flaxdigits.training.memory import check_memory, state_bytes, step_bytes
from flaxdigits.training.parallel import Devices, first_line
from flaxdigits.training.state import (
    TrainState,
    count_parameters,
    create_train_state,
    init_variables,
    stream,
)
from flaxdigits.training.step import Examples, TrainTask
from flaxdigits.training.teacher import load_teacher
from flaxdigits.training.weights import saved_variables


class Run:
    """A run in memory: its task, its train state and its clocks.

    Attributes:
      step: the number of steps done, of `total_steps`.
      state: the train state after them.
      record: the clocks so far.
      splits: indices into the data set, by split.
    """

    def __init__(self, config: ExperimentConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        self.splits = split_indices(config.data, dataset)
        self.devices = Devices.all()
        train_config = config.train
        plan = BatchPlan(len(self.splits["train"]), train_config.batch_size, self.devices.count)
        self.steps_per_epoch = plan.steps_per_epoch
        self.total_steps = total_steps(train_config, plan)
        check_components(config, RunShape(
            dataset.images.shape[1:], len(dataset.class_names), self.total_steps,
            plan.steps_per_epoch))
        model = build_model(config.model, len(dataset.class_names))
        train_config.loss.check_classes(len(dataset.class_names), "train.loss")
        self.schedule = config.optimizer.schedule.build(
            config.optimizer.learning_rate, self.total_steps, plan.steps_per_epoch)
        optimizer = config.optimizer.create(self.schedule)
        self.task = TrainTask(config, model, optimizer, plan, len(dataset.class_names))
        check_memory(state_bytes(self._state_shapes()),
                     f"the train state of {config.model.name}")
        self.state = self._fresh_state()
        check_logits(model, self.state.variables(), dataset.images.shape[1:],
                     len(dataset.class_names))
        self.examples = self.devices.replicate(Examples(dataset.images, dataset.labels))
        self.logits = LogitsProgram(
            model, config.evaluate.preprocessing or config.data.preprocessing,
            config.evaluate.batch_size, self.devices)
        self.step = 0
        self.record = Record()

    def with_config(self, config: ExperimentConfig) -> "Run":
        """Returns a fresh run of another seed or fold that shares the programs and examples.

        Raises:
          FlaxdigitsError: if its fold has another number of training examples.
        """
        other = copy.copy(self)
        other.config, other.splits = config, split_indices(config.data, self.dataset)
        if len(other.splits["train"]) != len(self.splits["train"]):
            raise FlaxdigitsError(
                f"data.fold={config.data.fold} trains on {len(other.splits['train'])} examples and "
                f"data.fold={self.config.data.fold} on {len(self.splits['train'])}: set data.limit "
                "to the smallest, or train each by itself")
        other.step, other.record, other.state = 0, Record(), other._fresh_state()
        return other

    def check_memory(self) -> None:
        """Raises FlaxdigitsError if a train step takes more memory than there is."""
        plan, rows = self.task.plan, self.task.plan.padded_batch_size
        if jax.default_backend() != "cpu":  # devices with memories of their own
            rows //= plan.devices
        check_memory(
            step_bytes(self.task.model, self.state.variables(), self.dataset.images.shape[1:],
                       rows),
            f"a train step with train.batch_size={self.config.train.batch_size}")

    def init_from_run(self, path: str, digest: str | None) -> None:
        """Initializes the weights from the last checkpoint of another run.

        Args:
          path: of that run's folder.
          digest: of the weights, see `saved_variables`.
        """
        fresh = {"params": self.state.params, **self.state.model_state}
        self.state = self.devices.replicate(self._state_of(saved_variables(path, fresh, digest)))

    def load_teacher(self) -> str | None:
        """Loads the network that the objective learns from, and returns its digest; else None.

        Raises:
          FlaxdigitsError: as `flaxdigits.training.teacher.load_teacher` does.
        """
        teacher = load_teacher(self.config, self.dataset)
        if teacher is None:
            return None
        self.task = dataclasses.replace(self.task, teacher=teacher.model)
        self.examples = self.examples.replace(
            teacher=self.devices.replicate(teacher.variables))
        return teacher.digest

    def not_finite(self) -> str | None:
        """Returns the name of a part of the state with a NaN or an infinity, or None."""
        state = self.state
        parts = {"a weight": state.params, "an averaged weight": state.ema,
                 "a value of the optimizer state": state.opt_state,
                 "a value of the layers' state": state.model_state,
                 "the sum of the losses": (state.epoch_sums, state.log_sums)}
        finite = np.asarray(_are_finite(list(parts.values())))
        return next((name for name, is_finite in zip(parts, finite, strict=True)
                     if not is_finite), None)

    def metrics(
        self, scores: dict[str, Scores | None], step: int, running_accuracy: float
    ) -> dict[str, Any]:
        """Returns the content of `result.json`.

        Args:
          scores: of every split.
          step: of the checkpoint that was scored.
          running_accuracy: the mean training accuracy of the steps of the last epoch.
        """
        config, record = self.config, self.record
        metrics: dict[str, Any] = {
            "experiment": config.experiment, "dataset": self.dataset.name,
            "data_source": self.dataset.source, "split": config.data.split, "seed": config.seed,
            "parameters": count_parameters(self.state.params), "steps": self.step,
            "epochs": self.step / self.steps_per_epoch,
            "checkpoint": config.checkpoint.report, "checkpoint_step": step}
        for name, value in scores.items():
            metrics |= flat(name, value, config.evaluate.metrics)
        return metrics | {
            "train_accuracy_running": running_accuracy,
            "seconds_compiling": record.seconds_compiling,
            "seconds_training": record.seconds_training,
            "seconds_evaluating": record.seconds_evaluating,
            "steps_per_second": self.step / record.seconds_training,
            "device": provenance.device_name(),
            "deterministic": provenance.is_deterministic(config.train.deterministic)}

    def _fresh_state(self) -> TrainState:
        return self.devices.replicate(self._local_state())

    def _state_shapes(self) -> TrainState:
        """Returns the shapes of the train state.

        Raises:
          FlaxdigitsError: if optax refuses the optimizer's fields, which it does when traced.
        """
        variables = jax.eval_shape(lambda: init_variables(
            self.task.model, self.config.seed, self.dataset.images.shape[1:]))
        try:
            shapes = jax.eval_shape(self._state_of, variables)
            jax.eval_shape(
                self.task.optimizer.update, shapes.params, shapes.opt_state, shapes.params)
        except Exception as error:
            raise FlaxdigitsError(
                f"optimizer: cannot update the params with these fields: {first_line(error)}"
            ) from error
        return shapes

    def _local_state(self) -> TrainState:
        return self._state_of(init_variables(
            self.task.model, self.config.seed, self.dataset.images.shape[1:]))

    def _state_of(self, variables: dict[str, Any]) -> TrainState:
        return create_train_state(variables, self.task.optimizer, self.config.train.ema_decay)

    def predict(self, split: str) -> Predictions | None:
        """Returns the logits of a split for the current state; None without such a split."""
        if split not in self.splits:
            return None
        start = time.perf_counter()
        index = self.splits[split]
        logits = self.logits(self.state.variables(), self.examples.images, index)
        self.clock(seconds_evaluating=time.perf_counter() - start)
        return Predictions(index, self.dataset.labels[index], logits)

    def score(self, split: str) -> Scores | None:
        """Returns the metrics of a split for the current state; None without such a split."""
        return self.scores_of(self.predict(split))

    def scores_of(self, predictions: Predictions | None) -> Scores | None:
        """Returns the metrics of predictions; None for None."""
        if predictions is None:
            return None
        return score(predictions.logits, predictions.labels, self.config.train.loss,
                     self.config.evaluate.metrics)

    def order(self, epoch: int) -> jax.Array:
        """Returns the indices of the examples of an epoch, in training order."""
        index = self.splits["train"].astype(np.int32)
        return self.devices.replicate(
            epoch_order(stream(self.config.seed, "order"), epoch, index))

    def clock(self, **seconds: float) -> None:
        """Adds seconds to the clocks of the record."""
        added = {name: getattr(self.record, name) + value for name, value in seconds.items()}
        self.record = dataclasses.replace(self.record, **added)


def total_steps(config: TrainConfig, plan: BatchPlan) -> int:
    """Returns the number of steps of a whole run.

    Raises:
      FlaxdigitsError: if they are too many to be counted in an int32.
    """
    steps = config.steps or config.epochs * plan.steps_per_epoch
    if steps >= 2**31:
        raise FlaxdigitsError(
            f"train.epochs={config.epochs} makes {steps} steps; 2,147,483,647 are the most")
    return steps


@jax.jit
def _are_finite(trees: list[Any]) -> jax.Array:
    """Returns whether all values of each tree are finite: [trees] bool."""
    return jnp.stack([
        jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)], bool).all()
        for tree in trees])
