"""Checks of custom components: each is traced on shapes before anything is trained."""

import dataclasses
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr

from flaxdigits.components import Component, is_built_in, reraise_with_component
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.metrics import check_metric
from flaxdigits.models import build_model, check_logits
from flaxdigits.models.layers import Training
from flaxdigits.objectives import Batch, Forward
from flaxdigits.training.freezing import check_freeze, split_params
from flaxdigits.training.state import variables_shapes

BATCH_SIZE = 4  # the size of the batch that is traced

# The number of times that a component is traced, to find random values that are not those of
# `jax.random`. Two traces find every random number, but only half of the random choices between two
# branches.
TRACES = 8
TRACES_OF_MODEL = 2  # tracing a whole network takes longer
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of a function in the text of a program


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
    """Raises FlaxdigitsError if a custom component raises, or returns a wrong type or shape.

    A component that uses random values other than those of `jax.random` is also an error: such a
    value would be a constant of the compiled step. Components are only traced (as by
    `jax.eval_shape`), except metrics, which are evaluated on a few random numbers. Built-in
    components are not checked.

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
            _check_optimizer(config, run)
    if _is_custom(train.loss):
        with reraise_with_component(train.loss, "train.loss"):
            logits = jax.ShapeDtypeStruct((BATCH_SIZE, run.num_classes), jnp.float32)
            _check_float_shape("train.loss", train.loss, (BATCH_SIZE,), _trace(
                "train.loss", train.loss, train.loss.losses, logits, logits))
    for position, augmentation in enumerate(config.data.augmentation):
        if _is_custom(augmentation):
            path = f"data.augmentation.{position}"
            with reraise_with_component(augmentation, path):
                image = jax.ShapeDtypeStruct(run.image, jnp.float32)
                _check_float_shape(path, augmentation, run.image, _trace(
                    path, augmentation,
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


def _check_float_shape(
    path: str, component: Component, wanted: tuple[int, ...], found: Any
) -> None:
    if getattr(found, "shape", None) != wanted or not jnp.issubdtype(found.dtype, jnp.floating):
        got = f"{list(found.shape)} {found.dtype}" if hasattr(found, "shape") else repr(found)
        raise FlaxdigitsError(
            f"{path}: {component.name} must return a float array of shape {list(wanted)}, got "
            f"{got}")


def _trace(
    path: str, component: Component, function: Callable[..., Any], *shapes: Any,
    traces: int = TRACES,
) -> Any:
    """Returns the shapes and dtypes of the value of a component's function, as `jax.eval_shape`.

    Raises:
      FlaxdigitsError: if several traces differ, or a trace advances a global random generator.
    """
    before, programs, result = _generator_states(), set(), None
    for _ in range(traces):
        # JAX caches the trace of a function object, so that each trace needs a new one.
        jaxpr, result = jax.make_jaxpr(
            lambda *arguments: function(*arguments), return_shape=True)(*shapes)
        programs.add((ADDRESS.sub("", str(jaxpr)), *_constants(jaxpr)))
    if len(programs) > 1 or _generator_states() != before:
        raise FlaxdigitsError(
            f"{path}: {component.name} uses a value of numpy.random, random, time or the like, "
            "which would be computed once, when the step is compiled, and be the same in every "
            "step: use jax.random with the key that an augmentation (key), an objective (batch.key)"
            " or a model (self.make_rng) receives, and for a constant numpy.random.default_rng(0)")
    return result


def _constants(jaxpr: ClosedJaxpr) -> Iterator[bytes]:
    """Yields the values of the arrays that a traced function contains, as bytes."""
    for value in jaxpr.consts:
        if isinstance(value, Tracer):
            raise jax.errors.UnexpectedTracerError("an array of an earlier trace")
        is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        yield np.asarray(jax.random.key_data(value) if is_key else value).tobytes()
    for equation in jaxpr.jaxpr.eqns:
        for part in jax.tree.leaves(
                equation.params, is_leaf=lambda part: isinstance(part, ClosedJaxpr)):
            if isinstance(part, ClosedJaxpr):
                yield from _constants(part)


def _generator_states() -> tuple[Any, ...]:
    """Returns the states of the global random generators of NumPy and Python."""
    parts = jax.tree.leaves(np.random.get_state(legacy=False))
    return [np.asarray(part).tobytes() for part in parts], random.getstate()


def _schedule(config: ExperimentConfig, run: RunShape) -> Any:
    return config.optimizer.schedule.build(
        config.optimizer.learning_rate, run.total_steps, run.steps_per_epoch)


def _check_schedule(config: ExperimentConfig, run: RunShape) -> None:
    schedule = _schedule(config, run)
    if not callable(schedule):
        raise FlaxdigitsError(
            f"optimizer.schedule: {config.optimizer.schedule.name} must build a function of the "
            f"step, got {schedule!r}")
    _check_float_shape("optimizer.schedule", config.optimizer.schedule, (), _trace(
        "optimizer.schedule", config.optimizer.schedule,
        lambda step: jax.tree.map(jnp.asarray, _schedule(config, run)(step)),
        jax.ShapeDtypeStruct((), jnp.int32)))


def _check_optimizer(config: ExperimentConfig, run: RunShape) -> None:
    optimizer, schedule = config.optimizer, _schedule(config, run)
    for built in optimizer.transforms(schedule):
        if not isinstance(built, optax.GradientTransformation):
            raise FlaxdigitsError(
                f"optimizer: {optimizer.name} must build an optax.GradientTransformation, got "
                f"{built!r}")
    model = build_model(config.model, run.num_classes)
    params = variables_shapes(model, run.image)["params"]
    check_freeze(params, config.train.freeze)
    trained, _ = split_params(params, config.train.freeze)

    def update(params: Any) -> Any:
        created = optimizer.create(_schedule(config, run))
        return created.update(params, created.init(params), params)

    _trace("optimizer", optimizer, update, trained)


def _check_model(config: ExperimentConfig, run: RunShape) -> None:
    model = build_model(config.model, run.num_classes)
    variables = variables_shapes(model, run.image)
    check_logits(model, variables, run.image, run.num_classes)
    if not jax.tree.leaves(variables.get("params")):
        raise FlaxdigitsError(f"model: {config.model.name} has no parameters to train")
    logits, _ = _trace(
        "model", config.model,
        lambda variables: _logits(model, variables, jnp.zeros((BATCH_SIZE, *run.image))), variables,
        traces=TRACES_OF_MODEL)
    _check_float_shape("model", config.model, (BATCH_SIZE, run.num_classes), logits)


def _logits(model: Any, variables: Any, images: jax.Array) -> tuple[jax.Array, Any]:
    """Returns the logits in training, and the model's state."""
    state = [name for name in variables if name != "params"]
    training = Training(jnp.arange(len(images)), jnp.ones(len(images), bool))
    return model.apply(
        variables, images, training, rngs={"dropout": jax.random.key(0)}, mutable=state)


def _check_objective(config: ExperimentConfig, run: RunShape) -> None:
    """Checks the shapes that a custom objective returns; the logits of its teacher are zeros."""
    objective, model = config.train.objective, build_model(config.model, run.num_classes)
    variables = variables_shapes(model, run.image)
    positions = jnp.arange(BATCH_SIZE)

    def gradient(variables: Any, images: jax.Array, targets: jax.Array) -> Any:
        state = {name: value for name, value in variables.items() if name != "params"}
        forward = Forward(
            lambda params, images: _logits(model, {"params": params, **state}, images),
            config.train.loss.losses, mean=jnp.mean, all_reduce=lambda tree: tree,
            teacher_logits=lambda images: jnp.zeros((len(images), run.num_classes)))
        batch = Batch(positions, jnp.int32(BATCH_SIZE), lambda at: (images[at], targets[at]),
                      jax.random.key(0))
        return objective.gradient(forward, variables["params"], *objective.inputs(batch), batch)

    result = _trace(
        "train.objective", objective, gradient, variables,
        jax.ShapeDtypeStruct((BATCH_SIZE, *run.image), jnp.float32),
        jax.ShapeDtypeStruct((BATCH_SIZE, run.num_classes), jnp.float32), traces=TRACES_OF_MODEL)
    (loss, (logits, _)), grads = result
    _check_float_shape("train.objective", objective, (), loss)
    _check_float_shape("train.objective", objective, (BATCH_SIZE, run.num_classes), logits)
    if jax.tree.structure(grads) != jax.tree.structure(variables["params"]):
        raise FlaxdigitsError(
            f"train.objective: {objective.name} must return a gradient for every parameter")
