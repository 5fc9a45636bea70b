"""Traces the compiled loop of an experiment with shapes only."""

import dataclasses

import jax
import jax.numpy as jnp

from flaxdigits.data.batches import BatchPlan
from flaxdigits.experiments import load_experiment
from flaxdigits.models import build_model
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.parallel import Devices, all_positions, parallel_steps
from flaxdigits.training.state import create_train_state, init_variables
from flaxdigits.training.step import DeviceDataset, Streams, TrainTask

EXAMPLES = 1000


def traced_steps(name: str, parallel: str, *overrides: str):
    """Traces the compiled loop with shapes only: nothing is allocated or executed."""
    config = apply_overrides(load_experiment(name), overrides)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, parallel=parallel))
    is_chinese = config.data.dataset == "chinese_mnist"
    image, classes = ((64, 64, 1), 15) if is_chinese else ((28, 28, 1), 10)
    model = build_model(config.model, classes)
    optimizer = config.optimizer.create(
        config.optimizer.schedule.build(config.optimizer.learning_rate, EXAMPLES, EXAMPLES))
    devices = Devices.all()
    task = TrainTask(config, model, optimizer,
                     BatchPlan(EXAMPLES, config.train.batch_size, devices.count), classes)
    state = jax.eval_shape(lambda: create_train_state(
        init_variables(model, 0, image), optimizer, config.train.ema_decay))
    shape = jax.ShapeDtypeStruct
    steps = parallel_steps(task, devices)
    if parallel == "pmap":
        steps = jax.jit(steps)
    return steps.trace(
        state, DeviceDataset(shape((EXAMPLES, *image), jnp.uint8), shape((EXAMPLES,), jnp.int32)),
        shape((EXAMPLES,), jnp.int32), all_positions(task, devices), Streams.of(0),
        shape((), jnp.int32))
