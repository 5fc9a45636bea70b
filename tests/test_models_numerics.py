"""Each network's forward pass, loss, gradient and first step against float64 NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_networks import (
    CONVOLUTIONS,
    DENSE,
    NETWORKS,
    OPTIMIZERS,
    STEPS,
    forward,
    numpy_loss,
    numpy_preprocess,
    weights_of,
)

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.batches import BatchPlan
from flaxdigits.data.preprocessing import preprocess
from flaxdigits.experiments import load_experiment
from flaxdigits.models import build_model
from flaxdigits.training.state import create_train_state
from flaxdigits.training.step import DeviceDataset, Streams, TrainTask, train_step

REAL, ROWS = 3, 4  # a batch with a row of padding


@dataclasses.dataclass(frozen=True)
class Computed:
    """What one side finds."""

    logits: np.ndarray
    loss: float
    gradient: dict
    params: dict


def recipe(name: str) -> ExperimentConfig:
    """The experiment's own, narrowed, and without what is random."""
    config = load_experiment(name)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model, dropout=(), filters=tuple(f for *_, f in CONVOLUTIONS[name]),
            dense=tuple(DENSE[name][1:-1])),
        data=dataclasses.replace(config.data, augmentation=()),
        train=dataclasses.replace(config.train, batch_size=ROWS))


def examples_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    size = 64 if name == "chinese_cnn" else 28
    images = rng.integers(0, 256, (REAL, size, size, 1), np.uint8)
    images[:, :, 4] = 0  # a dark column: its norm is zero
    return images, rng.integers(0, DENSE[name][-1], REAL).astype(np.int32)


def keep_gradient() -> optax.GradientTransformation:
    """Changes nothing; its state is the last gradient, for us to read."""
    return optax.GradientTransformation(
        lambda params: params, lambda gradient, state, params: (gradient, gradient))


@pytest.fixture(scope="module", params=NETWORKS)
def both(request) -> tuple[str, Computed, Computed]:
    """The values of the package, and those of NumPy."""
    name = request.param
    config, weights, (images, labels) = recipe(name), weights_of(name), examples_of(name)
    logits, backward = forward(
        name, weights, numpy_preprocess(images, config.data.preprocessing))
    loss, of_logits = numpy_loss(logits, labels, config.train.loss.name)
    gradient = backward(of_logits)
    step = STEPS[OPTIMIZERS[name]]
    expected = Computed(logits, loss, gradient, jax.tree.map(
        lambda weight, g: weight + step(g), weights, gradient))

    images, labels = jnp.asarray(images), jnp.asarray(labels)
    model = build_model(config.model, DENSE[name][-1])
    optimizer = optax.chain(keep_gradient(), config.optimizer.create(
        config.optimizer.schedule.build(config.optimizer.learning_rate, 100, 100)))
    task = TrainTask(config, model, optimizer, BatchPlan(REAL, ROWS, devices=1), DENSE[name][-1])

    @jax.jit
    def compute(params):
        logits = model.apply({"params": params}, preprocess(images, config.data.preprocessing))
        state, sums, _ = train_step(
            task, create_train_state({"params": params}, optimizer, None),
            DeviceDataset(images, labels), jnp.arange(REAL), jnp.arange(ROWS),
            Streams.of(0))
        return logits, sums, state.opt_state[0], state.params

    logits, sums, gradient, after = jax.device_get(compute(jax.tree.map(np.float32, weights)))
    assert sums.examples == REAL
    assert sums.correct == (expected.logits.argmax(1) == np.asarray(labels)).sum()
    return name, Computed(logits, sums.loss / REAL, gradient, after), expected


def test_logits(both):
    _, ours, expected = both
    assert np.abs(expected.logits).max() > 0.1
    np.testing.assert_allclose(ours.logits, expected.logits, rtol=0, atol=2e-5)


def test_loss_of_a_train_step_is_the_mean_over_its_real_examples(both):
    _, ours, expected = both
    np.testing.assert_allclose(ours.loss, expected.loss, rtol=1e-5)


def test_gradient(both):
    _, ours, expected = both
    assert jax.tree.structure(ours.gradient) == jax.tree.structure(expected.gradient)

    def check(path, found, expected):
        largest = np.abs(expected).max()
        assert largest > 0, path
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=2e-5 * largest, err_msg=str(path))

    jax.tree_util.tree_map_with_path(check, ours.gradient, expected.gradient)


def test_parameters_after_a_step(both):
    """Within what a gradient wrong by 1 in 50,000 gives: the formulas are steep near zero.

    Where a unit is dead, its gradient all zero, its parameters must not move.
    """
    name, ours, expected = both
    step = STEPS[OPTIMIZERS[name]]

    def check(path, weight, found, gradient):
        is_alive = (gradient != 0).any(tuple(range(gradient.ndim - 1)))  # each unit
        error = 2e-5 * np.abs(gradient).max() * is_alive
        low, high = step(gradient + error), step(gradient - error)
        slack = 1e-5 * np.abs(step(gradient)) + 1e-7 * np.abs(weight) + 1e-9
        change = found - weight
        wrong = (change < low - slack) | (change > high + slack)
        assert not wrong.any(), (path, change[wrong][:3], gradient[wrong][:3])
        is_sharp = np.abs(high - low) < 0.02 * np.abs(step(gradient)).max()
        assert is_sharp.mean() > 0.25, path  # a check that lets everything through is none

    jax.tree_util.tree_map_with_path(check, weights_of(name), ours.params, expected.gradient)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_numpy_gradient_is_the_slope_of_the_numpy_loss(loss):
    name, delta, rng = "chinese_cnn", 1e-6, np.random.default_rng(0)
    weights, (images, labels) = weights_of(name), examples_of(name)

    def loss_of():
        logits, backward = forward(name, weights, images / 255)
        value, of_logits = numpy_loss(logits, labels, loss)
        return value, backward, of_logits

    _, backward, of_logits = loss_of()
    gradient = backward(of_logits)
    for key, layer in weights.items():
        for kind, array in layer.items():
            place = tuple(rng.integers(0, array.shape))
            start, values = array[place], []
            for moved in (start + delta, start - delta):
                array[place] = moved
                values.append(loss_of()[0])
            array[place] = start
            slope = (values[0] - values[1]) / (2 * delta)
            np.testing.assert_allclose(
                gradient[key][kind][place], slope, rtol=1e-4, atol=1e-8, err_msg=f"{key} {kind}")
