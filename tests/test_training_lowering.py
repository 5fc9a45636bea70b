"""Every experiment's train steps lower for GPU and TPU, natively convolved there and not here."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from flaxdigits.data.batches import BatchPlan
from flaxdigits.experiments import list_experiments, load_experiment
from flaxdigits.models import build_model
from flaxdigits.models.convolution import PARTS
from flaxdigits.training.optimizers import create_optimizer, create_schedule
from flaxdigits.training.parallel import Devices, all_places, parallel_steps
from flaxdigits.training.state import create_train_state, init_variables
from flaxdigits.training.step import Examples, Streams, TrainTask

EXAMPLES = 1000
CONVOLUTIONS = {"chinese_cnn": 3, "mnist_cnn": 4, "mse_cnn": 2, "kaggle_cnn": 4, "dense_cnn": 1}


def traced_steps(name: str, parallel: str):
    """The compiled loop's trace, of shapes alone: nothing is allocated or run."""
    config = load_experiment(name)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, parallel=parallel))
    is_chinese = config.data.dataset == "chinese_mnist"
    image, classes = ((64, 64, 1), 15) if is_chinese else ((28, 28, 1), 10)
    model = build_model(config.model, classes)
    optimizer = create_optimizer(config.optimizer, create_schedule(config.optimizer, EXAMPLES))
    devices = Devices.all()
    task = TrainTask(config, model, optimizer,
                     BatchPlan(EXAMPLES, config.train.batch_size, devices.count))
    state = jax.eval_shape(lambda: create_train_state(
        init_variables(model, 0, image), optimizer, config.train.ema_decay))
    shape = jax.ShapeDtypeStruct
    steps = parallel_steps(task, devices)
    if parallel == "pmap":
        steps = jax.jit(steps)
    return steps.trace(
        state, Examples(shape((EXAMPLES, *image), jnp.uint8), shape((EXAMPLES,), jnp.int32)),
        shape((EXAMPLES,), jnp.int32), all_places(task, devices), Streams.of(0),
        shape((), jnp.int32))


def test_every_experiment_is_here():
    assert set(list_experiments()) == set(CONVOLUTIONS)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_train_steps_lower_for_every_platform(name, parallel):
    traced = traced_steps(name, parallel)
    convolutions = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text().count(
            "stablehlo.convolution")
        for platform in ("cpu", "cuda", "tpu")}
    # Forward, and back to the kernel and to the input, but for the first layer's: its input is
    # the images.
    native = 3 * CONVOLUTIONS[name] - 1
    # On the CPU they are products, but for kaggle_cnn's 5 x 5 on many channels: three, in parts.
    on_cpu = 3 * PARTS if name == "kaggle_cnn" else 0
    assert convolutions == {"cpu": on_cpu, "cuda": native, "tpu": native}
