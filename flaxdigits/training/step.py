"""The train step, and the compiled loop over several train steps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.batches import BatchPlan
from flaxdigits.data.inputs import training_inputs
from flaxdigits.models.layers import Training
from flaxdigits.objectives import Batch, Forward
from flaxdigits.training.freezing import merge_params, split_params
from flaxdigits.training.precision import cast, matmul_precision
from flaxdigits.training.state import PRNG, Sums, TrainState, stream


@flax.struct.dataclass
class DeviceDataset:
    """A whole data set on the device, and the teacher's variables; both are constant in a run.

    Attributes:
      images: [examples, height, width, channels] uint8.
      labels: [examples] int32.
      teacher: the variables of the network that the objective learns from, or None.
    """

    images: jax.Array
    labels: jax.Array
    teacher: Any = None


@flax.struct.dataclass
class Streams:
    """The PRNG keys of dropout and augmentation, as key data: [2] uint32 each."""

    dropout: jax.Array
    augmentation: jax.Array

    @classmethod
    def of(cls, seed: int) -> "Streams":
        """Returns the keys of the run with this seed."""
        return cls(*(jax.random.key_data(stream(seed, field.name))
                     for field in dataclasses.fields(cls)))


@flax.struct.dataclass
class Norms:
    """Global L2 norms of a train step over the parameters that are trained, each [] float32.

    Attributes:
      gradient: the norm of the global batch's gradient, with the L2 penalty and before clipping.
      update: the norm of the change of the parameters.
      parameter: the norm of the parameters after the step.
    """

    gradient: jax.Array
    update: jax.Array
    parameter: jax.Array


@flax.struct.dataclass
class StepMetrics:
    """The metrics of several train steps.

    Attributes:
      sums: the sums over the examples of these steps.
      first_nonfinite_step: [] int32, the first step whose loss was not finite, or -1. No step is
        made after it.
      norms: the norms of the last step; None without `train.log_norms`.
    """

    sums: Sums
    first_nonfinite_step: jax.Array
    norms: Norms | None = None


@dataclasses.dataclass(frozen=True)
class TrainTask:
    """The static parts of a train step.

    Attributes:
      config: the config of the experiment.
      model: the linen module.
      optimizer: the optax optimizer.
      plan: the division of an epoch into batches.
      num_classes: the size of a one-hot target.
      teacher: the network that the objective learns from, or None.
      axis_name: the mapped axis under `pmap`; None under `jit`.
      shard_batch: shards a batch's arrays over the devices under `jit`.
    """

    config: ExperimentConfig
    model: nn.Module
    optimizer: optax.GradientTransformation
    plan: BatchPlan
    num_classes: int
    teacher: nn.Module | None = None
    axis_name: str | None = None
    shard_batch: Callable[[Any], Any] = lambda batch: batch


def train_step(
    task: TrainTask, state: TrainState, examples: DeviceDataset, order: jax.Array,
    positions: jax.Array, streams: Streams,
) -> tuple[TrainState, Sums, Norms | None]:
    """Makes one optimizer update on the batch of step `state.step`.

    Args:
      task: the static parts of the step.
      state: the train state before the step.
      examples: the whole data set, on the device.
      order: [examples of an epoch] int32, this epoch's indices into `examples`.
      positions: [rows] int32, the positions in the global batch that this device computes.
      streams: the PRNG keys of dropout and augmentation.

    Returns:
      The state after the step, the sums of the step over the global batch, and with
      `train.log_norms` the norms of the step.
    """
    config, precision = task.config, task.config.train.precision
    trained, frozen = split_params(state.params, config.train.freeze)
    _, mask = task.plan.select(state.step, task.shard_batch(positions))
    training = Training(positions, mask, task.axis_name)
    augmentation_key = _fold_in(streams.augmentation, state.step)
    rngs = {"dropout": _fold_in(streams.dropout, state.step)}
    examples_in_batch = training.sum(mask.sum())

    def load(requested: jax.Array) -> tuple[jax.Array, jax.Array]:
        indices, _ = task.plan.select(state.step, task.shard_batch(requested))
        images, labels = task.shard_batch((examples.images[order[indices]],
                                           examples.labels[order[indices]]))
        images = training_inputs(images, requested, augmentation_key, config.data)
        return images, jax.nn.one_hot(labels, task.num_classes)

    def logits_of(params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        logits, model_state = task.model.apply(
            {"params": cast(merge_params(params, frozen), precision), **state.model_state},
            cast(images, precision), training, rngs=rngs, mutable=list(state.model_state))
        return logits.astype(jnp.float32), model_state

    def teacher_logits(images: jax.Array) -> jax.Array:
        variables = {**examples.teacher, "params": cast(examples.teacher["params"], precision)}
        logits: Any = task.teacher.apply(variables, cast(images, precision), None)
        return logits.astype(jnp.float32)

    forward = Forward(
        logits_of, config.train.loss.losses,
        mean=lambda losses: jnp.where(mask, losses, 0).sum() / examples_in_batch,
        all_reduce=lambda tree: jax.tree.map(training.sum, tree),
        teacher_logits=None if task.teacher is None else teacher_logits)
    batch = Batch(
        positions, examples_in_batch, load, key=jax.random.fold_in(augmentation_key, 2**32 - 1))
    objective = config.train.objective
    images, targets = objective.inputs(batch)
    with matmul_precision(precision):
        (loss, (logits, model_state)), gradient = objective.gradient(
            forward, trained, images, targets, batch)
    correct = (mask & (logits.argmax(-1) == targets.argmax(-1))).sum()
    loss, correct, gradient = forward.all_reduce((loss, correct, gradient))
    if config.train.l2_penalty:
        gradient = add_l2(gradient, trained, config.train.l2_penalty)
    updates, opt_state = task.optimizer.update(gradient, state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    norms = None
    if config.train.log_norms:
        norms = Norms(*map(_global_norm, (gradient, updates, trained)))
    ema = state.ema
    if ema is not None and config.train.ema_decay is not None:
        averaged, _ = split_params(ema, config.train.freeze)
        averaged = optax.incremental_update(trained, averaged, 1 - config.train.ema_decay)
        ema = merge_params(averaged, frozen)
    sums = Sums(loss * examples_in_batch, correct, examples_in_batch)
    return TrainState(
        step=state.step + 1, params=merge_params(trained, frozen), model_state=model_state,
        opt_state=opt_state, ema=ema,
        epoch_sums=_reset_if(state.epoch_sums, state.step % task.plan.steps_per_epoch == 0) + sums,
        log_sums=_reset_if(state.log_sums, state.step % config.train.log_every == 0) + sums,
    ), sums, norms


def add_l2(gradient: Any, params: Any, penalty: float) -> Any:
    """Returns the gradient of the loss plus `penalty` times the sum of the kernels' squares."""
    return jax.tree_util.tree_map_with_path(
        lambda path, slope, param: slope + 2 * penalty * param
        if path[-1].key == "kernel" else slope, gradient, params)


def _fold_in(key_data: jax.Array, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.wrap_key_data(key_data, impl=PRNG), step)


def _global_norm(tree: Any) -> jax.Array:
    """Returns the global L2 norm of a pytree of arrays, a float32 scalar."""
    return optax.tree.norm(jax.tree.map(lambda array: array.astype(jnp.float32), tree))


def _reset_if(sums: Sums, is_start: jax.Array) -> Sums:
    """Returns zeros if an epoch, or the interval between two log lines, starts; else the sums."""
    return jax.tree.map(lambda value: jnp.where(is_start, 0, value), sums)


def train_steps(
    task: TrainTask, state: TrainState, examples: DeviceDataset, order: jax.Array,
    positions: jax.Array, streams: Streams, num_steps: jax.Array,
) -> tuple[TrainState, StepMetrics]:
    """Makes `num_steps` train steps within one epoch, in one compiled loop.

    The arguments are those of `train_step`; `num_steps` ([] int32) is traced, so that one
    compilation serves any number of steps. The loop ends early at a loss that is not finite.

    Returns:
      The state after the last step, and the metrics of the steps.
    """
    def is_unfinished(carry: tuple[jax.Array, TrainState, StepMetrics]) -> jax.Array:
        done, _, metrics = carry
        return (done < num_steps) & (metrics.first_nonfinite_step < 0)

    def advance(
        carry: tuple[jax.Array, TrainState, StepMetrics],
    ) -> tuple[jax.Array, TrainState, StepMetrics]:
        done, state, metrics = carry
        after, sums, norms = train_step(task, state, examples, order, positions, streams)
        first_nonfinite_step = jnp.where(jnp.isfinite(sums.loss), -1, state.step)
        return done + 1, after, StepMetrics(metrics.sums + sums, first_nonfinite_step, norms)

    norms = Norms(*[jnp.zeros(())] * 3) if task.config.train.log_norms else None
    start = (jnp.zeros((), jnp.int32), state,
             StepMetrics(Sums.zero(), jnp.full((), -1, jnp.int32), norms))
    _, state, metrics = lax.while_loop(is_unfinished, advance, start)
    return state, metrics
