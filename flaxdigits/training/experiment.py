"""The immutable parts of a run: model, optimizer, data, devices, batch plan."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from flaxdigits.config import ExperimentConfig, TrainConfig, to_dict
from flaxdigits.data.batches import BatchPlan, epoch_order
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models import build_model
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.training.component_checks import RunShape, check_components
from flaxdigits.training.freezing import check_freeze, split_params
from flaxdigits.training.logits import LogitsProgram
from flaxdigits.training.memory import check_memory, state_bytes, step_bytes
from flaxdigits.training.parallel import Devices, first_line
from flaxdigits.training.predictions import Predictions
from flaxdigits.training.scores import Scores, score
from flaxdigits.training.state import (
    TrainState,
    create_train_state,
    init_variables,
    stream,
    variables_shapes,
)
from flaxdigits.training.step import DeviceDataset, TrainTask
from flaxdigits.training.teacher import Teacher


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The immutable parts of a run; the part that changes is the `TrainState`.

    Attributes:
      config: the config of the experiment.
      dataset: the data set, on the host.
      splits: the indices into the data set, by split: [examples] int.
      devices: the devices on which the run is trained.
      task: the model, optimizer and batch plan of a train step.
      schedule: the learning rate by step.
      state_shapes: `jax.ShapeDtypeStruct`s with the shapes, dtypes and shardings of the train
        state.
      total_steps: the number of steps of the whole run.
      device_dataset: the data set on the devices.
      logits_fn: the compiled program that computes the logits of examples.
      teacher_digest: the digest of the network that the objective learns from, if any.
    """

    config: ExperimentConfig
    dataset: Dataset
    splits: dict[str, np.ndarray]
    devices: Devices
    task: TrainTask
    schedule: optax.Schedule
    state_shapes: TrainState
    total_steps: int
    device_dataset: DeviceDataset
    logits_fn: LogitsProgram
    teacher_digest: str | None = None

    @classmethod
    def create(cls, config: ExperimentConfig, dataset: Dataset) -> "Experiment":
        """Builds the model and the optimizer, and copies the data to the devices.

        Raises:
          FlaxdigitsError: if the config does not fit the data, a custom component is invalid, or
            the train state does not fit into memory.
        """
        splits, devices = split_indices(config.data, dataset), Devices.all()
        num_classes = len(dataset.class_names)
        plan = BatchPlan(len(splits["train"]), config.train.batch_size, devices.count)
        steps = total_steps(config.train, plan)
        check_components(config, RunShape(
            dataset.images.shape[1:], num_classes, steps, plan.steps_per_epoch))
        model = build_model(config.model, num_classes)
        config.train.loss.check_classes(num_classes, "train.loss")
        schedule = config.optimizer.schedule.build(
            config.optimizer.learning_rate, steps, plan.steps_per_epoch)
        task = TrainTask(
            config, model, config.optimizer.create(schedule), plan, num_classes)
        shapes = _state_shapes(task, dataset.images.shape[1:])
        check_memory(state_bytes(shapes), f"the train state of {config.model.name}")
        return cls(
            config, dataset, splits, devices, task, schedule,
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=devices.replicated), shapes),
            steps,
            device_dataset=DeviceDataset(*devices.replicate((dataset.images, dataset.labels))),
            logits_fn=LogitsProgram(
                model, config.evaluate.preprocessing or config.data.preprocessing,
                config.evaluate.batch_size, devices))

    def with_config(self, config: ExperimentConfig) -> "Experiment":
        """Returns the experiment of another seed or fold, which shares the programs and the data.

        Raises:
          FlaxdigitsError: if the other fold has another number of training examples.
        """
        if config.data == self.config.data:
            return dataclasses.replace(self, config=config)
        splits = split_indices(config.data, self.dataset)
        if len(splits["train"]) != len(self.splits["train"]):
            raise FlaxdigitsError(
                f"data.fold={config.data.fold} trains on {len(splits['train'])} examples and "
                f"data.fold={self.config.data.fold} on {len(self.splits['train'])}: set data.limit "
                "to the smaller number, or train each fold in a separate command")
        return dataclasses.replace(self, config=config, splits=splits)

    def with_teacher(self, teacher: Teacher | None) -> "Experiment":
        """Returns the experiment with the network that its objective learns from."""
        if teacher is None:
            return self
        return dataclasses.replace(
            self, task=dataclasses.replace(self.task, teacher=teacher.model),
            device_dataset=dataclasses.replace(
                self.device_dataset, teacher=self.devices.replicate(teacher.variables)),
            teacher_digest=teacher.digest)

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in which every training example is used once."""
        return self.task.plan.steps_per_epoch

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image: (height, width, channels)."""
        return self.dataset.images.shape[1:]

    def recorded(self) -> dict[str, Any]:
        """Returns the content of `config.json` that identifies the run, see `run_identity`."""
        return {"config": to_dict(self.config), "data": self.dataset.identity(),
                "teacher": self.teacher_digest}

    def initial_state(self, variables: dict[str, Any] | None = None) -> TrainState:
        """Returns the state before the first step, replicated on the devices.

        Args:
          variables: the variables of the model. Layers that it does not contain are initialized
            from the seed; None: all layers are.
        """
        arrays = flatten_dict(variables or {})
        arrays = jax.tree.map(jnp.copy, arrays)  # because the train steps donate their state
        if arrays.keys() != flatten_dict(self.state_shapes.variables()).keys():
            new = init_variables(self.task.model, self.config.seed, self.image_shape)
            arrays = flatten_dict(new, keep_empty_nodes=True) | arrays
        return self.devices.replicate(create_train_state(
            unflatten_dict(arrays), self.task.optimizer, self.config.train.ema_decay,
            self.config.train.freeze))

    def variables_shapes(self, num_classes: int) -> dict[str, Any]:
        """Returns the shapes and dtypes of the variables of the model with `num_classes` classes.
        """
        return variables_shapes(build_model(self.config.model, num_classes), self.image_shape)

    def check_step_memory(self) -> None:
        """Raises FlaxdigitsError if a train step is estimated to need more memory than is free."""
        plan, rows = self.task.plan, self.task.plan.padded_batch_size
        if jax.default_backend() != "cpu":  # each device has its own memory
            rows //= plan.devices
        check_memory(
            step_bytes(self.task.model, self.state_shapes.variables(), self.image_shape, rows),
            f"a train step with train.batch_size={self.config.train.batch_size}")

    def epoch_indices(self, epoch: int) -> jax.Array:
        """Returns the indices of the examples of an epoch, in training order: [examples] int32."""
        index = self.splits["train"].astype(np.int32)
        return self.devices.replicate(
            epoch_order(stream(self.config.seed, "order"), epoch, index))

    def predict(
        self, state: TrainState, split: str, progress: Progress = NO_PROGRESS
    ) -> Predictions | None:
        """Returns the predictions for a split; None if there is no such split."""
        if split not in self.splits:
            return None
        index = self.splits[split]
        with progress.stage(f"evaluating {split}", len(index)) as advance:
            logits = self.logits_fn(
                state.variables(), self.device_dataset.images, index, advance)
        return Predictions(index, self.dataset.labels[index], logits)

    def compute_metrics(self, predictions: Predictions | None) -> Scores | None:
        """Returns the metrics, or None if `predictions` is None."""
        if predictions is None:
            return None
        return score(predictions.logits, predictions.labels, self.config.train.loss,
                     self.config.evaluate.metrics)


def total_steps(config: TrainConfig, plan: BatchPlan) -> int:
    """Returns the number of steps of a run.

    Raises:
      FlaxdigitsError: if the number does not fit in an int32.
    """
    steps = config.steps or config.epochs * plan.steps_per_epoch
    if steps >= 2**31:
        raise FlaxdigitsError(
            f"train.epochs={config.epochs} gives {steps} steps, but a run can have at most "
            "2,147,483,647: reduce train.epochs")
    return steps


def non_finite_part(state: TrainState) -> str | None:
    """Returns the name of a part of the state that has a NaN or an infinity, or None."""
    parts = {"a weight": state.params, "an EMA weight": state.ema,
             "a value of the optimizer state": state.opt_state,
             "a value of the layers' state": state.model_state,
             "the sum of the losses": (state.epoch_sums, state.log_sums)}
    finite = np.asarray(_are_finite(list(parts.values())))
    return next((name for name, is_finite in zip(parts, finite, strict=True)
                 if not is_finite), None)


@jax.jit
def _are_finite(trees: list[Any]) -> jax.Array:
    """Returns whether all values of each tree are finite: [trees] bool."""
    return jnp.stack([
        jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)], bool).all()
        for tree in trees])


def _state_shapes(task: TrainTask, image_shape: tuple[int, ...]) -> TrainState:
    """Returns the shapes of the train state.

    Raises:
      FlaxdigitsError: if optax rejects the optimizer's hyperparameters, which it checks only when
        traced, or `train.freeze` does not fit the layers.
    """
    variables = variables_shapes(task.model, image_shape)
    train = task.config.train
    check_freeze(variables["params"], train.freeze)
    try:
        shapes = jax.eval_shape(
            lambda variables: create_train_state(
                variables, task.optimizer, train.ema_decay, train.freeze), variables)
        trained, _ = split_params(shapes.params, train.freeze)
        jax.eval_shape(task.optimizer.update, trained, shapes.opt_state, trained)
    except Exception as error:
        raise FlaxdigitsError(
            f"optimizer: cannot update the params with these fields: {first_line(error)}"
        ) from error
    return shapes
