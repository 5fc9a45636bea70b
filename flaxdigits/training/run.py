"""A run in memory: what the loop trains, scores and asks for its figures."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.batches import BatchPlan, epoch_order
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.logits import LogitsProgram
from flaxdigits.evaluation.predictions import Predictions
from flaxdigits.evaluation.scores import Scores, flat, score
from flaxdigits.models import build_model
from flaxdigits.training import provenance
from flaxdigits.training.checkpoints import Record
from flaxdigits.training.optimizers import create_optimizer, create_schedule
from flaxdigits.training.parallel import Devices, all_places, parallel_steps
from flaxdigits.training.state import (
    TrainState,
    count_parameters,
    create_train_state,
    init_variables,
    stream,
)
from flaxdigits.training.step import Examples, Steps, Streams, TrainTask
from flaxdigits.training.weights import saved_variables


class Run:
    """A run in memory: its program, its state and its clocks.

    Attributes:
      step: how many steps are done, of `total_steps`.
      state: after them.
      record: the clocks so far.
      splits: the indices of each into the data set.
    """

    def __init__(self, config: ExperimentConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        self.splits = split_indices(config.data, dataset)
        self.devices = Devices.all()
        train_config, model = config.train, build_model(config.model, len(dataset.class_names))
        plan = BatchPlan(len(self.splits["train"]), train_config.batch_size, self.devices.count)
        self.steps_per_epoch = plan.steps_per_epoch
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

    def is_finite(self) -> bool:
        """Whether there is no NaN and no infinity in the weights."""
        return bool(_all_finite((self.state.params, self.state.ema)))

    def figures(
        self, scores: dict[str, Scores | None], step: int, running_accuracy: float
    ) -> dict[str, Any]:
        """What `result.json` holds.

        Args:
          scores: of every split.
          step: of the checkpoint that they are about.
          running_accuracy: over the last epoch's training examples, as they were trained on.
        """
        config, record = self.config, self.record
        figures: dict[str, Any] = {
            "experiment": config.experiment, "dataset": self.dataset.name,
            "data_source": self.dataset.source, "split": config.data.split, "seed": config.seed,
            "parameters": count_parameters(self.state.params), "steps": self.step,
            "epochs": self.step / self.steps_per_epoch,
            "checkpoint": config.checkpoint.report, "checkpoint_step": step}
        for name, value in scores.items():
            figures |= flat(name, value)
        return figures | {
            "train_accuracy_running": running_accuracy,
            "seconds_compiling": record.seconds_compiling,
            "seconds_training": record.seconds_training,
            "seconds_evaluating": record.seconds_evaluating,
            "steps_per_second": self.step / record.seconds_training,
            "device": provenance.device_name(),
            "deterministic": provenance.is_deterministic(config.train.deterministic)}

    def _state_of(self, variables: dict[str, Any]) -> TrainState:
        return self.devices.replicate(create_train_state(
            variables, self.task.optimizer, self.config.train.ema_decay))

    def predict(self, split: str) -> Predictions | None:
        """The logits of a split as the state stands; None if there is no such split."""
        if split not in self.splits:
            return None
        start = time.perf_counter()
        index = self.splits[split]
        logits = self.logits(self.state.variables(), self.examples.images, index)
        self.clock(seconds_evaluating=time.perf_counter() - start)
        return Predictions(index, self.dataset.labels[index], logits)

    def score(self, split: str) -> Scores | None:
        """The figures of a split as the state stands; None if there is no such split."""
        return self.scores_of(self.predict(split))

    def scores_of(self, predictions: Predictions | None) -> Scores | None:
        """What predictions are worth; None of none."""
        if predictions is None:
            return None
        return score(predictions.logits, predictions.labels, self.config.train)

    def compile(self) -> Callable[[jax.Array, int], Steps]:
        """The steps as a function of the order and a count, which waits and keeps the state."""
        start = time.perf_counter()
        places = all_places(self.task, self.devices)
        replicate = self.devices.replicate
        streams = replicate(Streams.of(self.config.seed))
        compiled = parallel_steps(self.task, self.devices).lower(
            self.state, self.examples, self.order(0), places, streams,
            replicate(np.int32(1))).compile()
        self.clock(seconds_compiling=time.perf_counter() - start)

        def steps(order: jax.Array, count: int) -> Steps:
            self.state, report = compiled(
                self.state, self.examples, order, places, streams, replicate(np.int32(count)))
            return jax.device_get(report)

        return steps

    def order(self, epoch: int) -> jax.Array:
        """The indices of one epoch's examples, in the order in which they are seen."""
        index = self.splits["train"].astype(np.int32)
        return self.devices.replicate(
            np.asarray(epoch_order(stream(self.config.seed, "order"), epoch, index)))

    def clock(self, **seconds: float) -> None:
        """Adds to the record's clocks."""
        added = {name: getattr(self.record, name) + value for name, value in seconds.items()}
        self.record = dataclasses.replace(self.record, **added)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
