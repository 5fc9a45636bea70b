"""Checks of custom components: each is traced on shapes before anything is trained."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flaxdigits.components import Component, is_built_in, reraise_with_component
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.metrics import check_metric
from flaxdigits.models import build_model, check_logits
from flaxdigits.models.layers import Training
from flaxdigits.objectives import Batch, Forward
from flaxdigits.training.state import variables_shapes

EXAMPLES = 4  # the number of examples in the batch that is traced


@dataclasses.dataclass(frozen=True)
class RunShape:
    """The sizes of a run that its components depend on.

    Attributes:
      image: (height, width, channels).
      num_classes: the number of classes.
      total_steps: the number of steps of the whole run.
      steps_per_epoch: the number of steps of an epoch.
    """

    image: tuple[int, ...]
    num_classes: int
    total_steps: int
    steps_per_epoch: int


def check_components(config: ExperimentConfig, run: RunShape) -> None:
    """Raises FlaxdigitsError if a custom component raises, or returns something wrong.

    Nothing is computed but the metrics, on a few random numbers. Built-in components are not
    checked.

    Args:
      config: the config of the experiment.
      run: the sizes of the run.
    """
    optimizer, train = config.optimizer, config.train
    if _is_custom(config.model):
        with reraise_with_component(config.model, "model"):
            _check_model(config, run)
    if _is_custom(optimizer.schedule):
        with reraise_with_component(optimizer.schedule, "optimizer.schedule"):
            _check_schedule(config, run)
    if _is_custom(optimizer):
        with reraise_with_component(optimizer, "optimizer"):
            for built in optimizer.transforms(_schedule(config, run)):
                if not isinstance(built, optax.GradientTransformation):
                    raise FlaxdigitsError(
                        f"optimizer: {optimizer.name} must build an optax.GradientTransformation, "
                        f"got {built!r}")
    if _is_custom(train.loss):
        with reraise_with_component(train.loss, "train.loss"):
            logits = jax.ShapeDtypeStruct((EXAMPLES, run.num_classes), jnp.float32)
            _check_shape("train.loss", train.loss, (EXAMPLES,),
                         jax.eval_shape(train.loss.losses, logits, logits))
    for position, augmentation in enumerate(config.data.augmentation):
        if _is_custom(augmentation):
            path = f"data.augmentation.{position}"
            with reraise_with_component(augmentation, path):
                image = jax.ShapeDtypeStruct(run.image, jnp.float32)
                _check_shape(path, augmentation, run.image, jax.eval_shape(
                    lambda image, augmentation=augmentation: augmentation.augment(
                        image, jax.random.key(0)), image))
    if _is_custom(train.objective):
        with reraise_with_component(train.objective, "train.objective"):
            _check_objective(config, run)
    for metric in config.evaluate.metrics:
        if _is_custom(metric):
            with reraise_with_component(metric, "evaluate.metrics"):
                check_metric(metric, run.num_classes)


def _is_custom(component: Component) -> bool:
    return not is_built_in(type(component))


def _check_shape(path: str, component: Component, wanted: tuple[int, ...], found: Any) -> None:
    if getattr(found, "shape", None) != wanted or not jnp.issubdtype(found.dtype, jnp.floating):
        got = f"{list(found.shape)} {found.dtype}" if hasattr(found, "shape") else repr(found)
        raise FlaxdigitsError(
            f"{path}: {component.name} must return a float array of shape {list(wanted)}, got "
            f"{got}")


def _schedule(config: ExperimentConfig, run: RunShape) -> Any:
    return config.optimizer.schedule.build(
        config.optimizer.learning_rate, run.total_steps, run.steps_per_epoch)


def _check_schedule(config: ExperimentConfig, run: RunShape) -> None:
    schedule = _schedule(config, run)
    if not callable(schedule):
        raise FlaxdigitsError(
            f"optimizer.schedule: {config.optimizer.schedule.name} must build a function of the "
            f"step, got {schedule!r}")
    _check_shape("optimizer.schedule", config.optimizer.schedule, (), jax.eval_shape(
        lambda step: jax.tree.map(jnp.asarray, schedule(step)),
        jax.ShapeDtypeStruct((), jnp.int32)))


def _check_model(config: ExperimentConfig, run: RunShape) -> None:
    model = build_model(config.model, run.num_classes)
    variables = variables_shapes(model, run.image)
    check_logits(model, variables, run.image, run.num_classes)
    if not jax.tree.leaves(variables.get("params")):
        raise FlaxdigitsError(f"model: {config.model.name} has no parameters to train")
    logits, _ = jax.eval_shape(
        lambda variables: _logits(model, variables, jnp.zeros((EXAMPLES, *run.image))), variables)
    _check_shape("model", config.model, (EXAMPLES, run.num_classes), logits)


def _logits(model: Any, variables: Any, images: jax.Array) -> tuple[jax.Array, Any]:
    """Returns the logits in training, and the model's state."""
    state = [name for name in variables if name != "params"]
    training = Training(jnp.arange(len(images)), jnp.ones(len(images), bool))
    return model.apply(
        variables, images, training, rngs={"dropout": jax.random.key(0)}, mutable=state)


def _check_objective(config: ExperimentConfig, run: RunShape) -> None:
    objective, model = config.train.objective, build_model(config.model, run.num_classes)
    variables = variables_shapes(model, run.image)
    positions = jnp.arange(EXAMPLES)

    def gradient(variables: Any, images: jax.Array, targets: jax.Array) -> Any:
        state = {name: value for name, value in variables.items() if name != "params"}
        forward = Forward(
            lambda params, images: _logits(model, {"params": params, **state}, images),
            config.train.loss.losses, mean=jnp.mean, all_reduce=lambda tree: tree,
            teacher_logits=lambda images: jnp.zeros((len(images), run.num_classes)))
        batch = Batch(positions, jnp.int32(EXAMPLES), lambda at: (images[at], targets[at]),
                      jax.random.key(0))
        return objective.gradient(forward, variables["params"], *objective.inputs(batch), batch)

    result = jax.eval_shape(
        gradient, variables, jax.ShapeDtypeStruct((EXAMPLES, *run.image), jnp.float32),
        jax.ShapeDtypeStruct((EXAMPLES, run.num_classes), jnp.float32))
    (loss, (logits, _)), slopes = result
    _check_shape("train.objective", objective, (), loss)
    _check_shape("train.objective", objective, (EXAMPLES, run.num_classes), logits)
    if jax.tree.structure(slopes) != jax.tree.structure(variables["params"]):
        raise FlaxdigitsError(
            f"train.objective: {objective.name} must return a gradient for every parameter")
