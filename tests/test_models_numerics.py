"""Each network's forward pass, loss, gradient and first step against float64 NumPy by hand."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxdigits.config import Augmentation, ExperimentConfig
from flaxdigits.data.batches import BatchPlan
from flaxdigits.data.preprocessing import preprocess
from flaxdigits.experiments import load_experiment
from flaxdigits.models import build_model
from flaxdigits.training.optimizers import create_optimizer, create_schedule
from flaxdigits.training.state import create_train_state
from flaxdigits.training.step import Examples, Streams, TrainTask, train_step

# --- layers by hand: each gives its output and how a gradient goes back through it -------------

Backward = Callable[[np.ndarray], tuple[np.ndarray, dict[str, np.ndarray]]]


def convolution(x, weights, padding) -> tuple[np.ndarray, Backward]:
    kernel, bias = weights["kernel"], weights["bias"]
    rows, columns = kernel.shape[:2]
    around = [(0, 0)] * 4
    if padding == "SAME":  # the odd one of an even kernel goes to the end
        around[1:3] = [((size - 1) // 2, size // 2) for size in (rows, columns)]
    padded = np.pad(x, around)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (rows, columns), axis=(1, 2))
    output = np.einsum("bhwcij,ijcf->bhwf", windows, kernel, optimize=True) + bias

    def backward(gradient):
        spread = np.zeros_like(padded)
        height, width = gradient.shape[1:3]
        for i in range(rows):
            for j in range(columns):
                spread[:, i:i + height, j:j + width] += gradient @ kernel[i, j].T
        (top, _), (left, _) = around[1:3]
        of_kernel = np.einsum("bhwcij,bhwf->ijcf", windows, gradient, optimize=True)
        return (spread[:, top:top + x.shape[1], left:left + x.shape[2]],
                {"kernel": of_kernel, "bias": gradient.sum((0, 1, 2))})

    return output, backward


def dense(x, weights) -> tuple[np.ndarray, Backward]:
    def backward(gradient):
        return (gradient @ weights["kernel"].T,
                {"kernel": x.T @ gradient, "bias": gradient.sum(0)})

    return x @ weights["kernel"] + weights["bias"], backward


def relu(x) -> tuple[np.ndarray, Backward]:
    return np.maximum(x, 0), lambda gradient: (gradient * (x > 0), {})


def pool(x) -> tuple[np.ndarray, Backward]:
    corners = [(i, j) for i in range(2) for j in range(2)]
    even = x[:, :x.shape[1] // 2 * 2, :x.shape[2] // 2 * 2]
    choices = np.stack([even[:, i::2, j::2] for i, j in corners])
    largest = choices.argmax(0)

    def backward(gradient):
        spread = np.zeros_like(x)
        inside = spread[:, :even.shape[1], :even.shape[2]]
        for number, (i, j) in enumerate(corners):
            inside[:, i::2, j::2] = np.where(largest == number, gradient, 0)
        return spread, {}

    return choices.max(0), backward


def flatten(x) -> tuple[np.ndarray, Backward]:
    return x.reshape(len(x), -1), lambda gradient: (gradient.reshape(x.shape), {})


# --- the networks by hand: the documents' orders ------------------------------------------------

SAME, VALID = "SAME", "VALID"
NETWORKS = {
    "chinese_cnn": [SAME, relu, pool, SAME, relu, pool, SAME, relu, pool, flatten,
                    dense, relu, dense, relu, dense, relu, dense],
    "mnist_cnn": [VALID, relu, VALID, relu, pool, VALID, relu, VALID, relu, pool, flatten,
                  dense, relu, dense],
    "mse_cnn": [VALID, relu, pool, VALID, relu, pool, flatten, dense],
    "kaggle_cnn": [SAME, relu, SAME, relu, pool, SAME, relu, SAME, relu, pool, flatten,
                   dense, relu, dense, relu, dense],
    "dense_cnn": [SAME, relu, pool, flatten, dense, relu, dense, relu, dense],
}
# The kernels of the documents; where the real widths are slow to compute by hand, narrow ones.
CONVOLUTIONS = {
    "chinese_cnn": [(3, 1, 5), (3, 5, 6), (3, 6, 7)],
    "mnist_cnn": [(3, 1, 5), (3, 5, 6), (2, 6, 7), (2, 7, 8)],
    "mse_cnn": [(4, 1, 32), (3, 32, 32)],
    "kaggle_cnn": [(5, 1, 4), (5, 4, 5), (3, 5, 6), (3, 6, 7)],
    "dense_cnn": [(3, 1, 32)],
}
DENSE = {
    "chinese_cnn": [8 * 8 * 7, 20, 16, 12, 15],
    "mnist_cnn": [5 * 5 * 8, 12, 10],
    "mse_cnn": [800, 10],
    "kaggle_cnn": [7 * 7 * 7, 24, 16, 10],
    "dense_cnn": [6272, 256, 256, 10],
}


def weights_of(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Fixed float32-exact weights, with biases, of a size that keeps activations near one."""
    rng = np.random.default_rng(7)

    def layer(*shape):
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        return {"kernel": rng.normal(0, scale, shape).astype(np.float32).astype(float),
                "bias": rng.normal(0, 0.1, shape[-1:]).astype(np.float32).astype(float)}

    named = {f"Conv_{number}": layer(size, size, before, features)
             for number, (size, before, features) in enumerate(CONVOLUTIONS[name])}
    widths = DENSE[name]
    return named | {f"Dense_{number}": layer(*pair)
                    for number, pair in enumerate(itertools.pairwise(widths))}


def forward(name: str, weights, x) -> tuple[np.ndarray, Callable]:
    """Logits, and a function from their gradient to the gradient of every weight."""
    convolutions = (key for key in weights if key.startswith("Conv"))
    denses = (key for key in weights if key.startswith("Dense"))
    tape = []
    for layer in NETWORKS[name]:
        key = None
        if layer in (SAME, VALID):
            key = next(convolutions)
            x, back = convolution(x, weights[key], layer)
        elif layer is dense:
            key = next(denses)
            x, back = dense(x, weights[key])
        else:
            x, back = layer(x)
        tape.append((key, back))

    def backward(gradient):
        found = {}
        for key, back in reversed(tape):
            gradient, of_weights = back(gradient)
            if key:
                found[key] = of_weights
        return found

    return x, backward


def loss_by_hand(logits, labels, loss: str) -> tuple[float, np.ndarray]:
    """The mean loss over the examples and its gradient by the logits."""
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    p = exponential / exponential.sum(1, keepdims=True)
    target = np.eye(logits.shape[1])[labels]
    if loss == "mse":
        of_p = 2 * (p - target) / target.size
        return np.mean((p - target)**2), p * (of_p - (of_p * p).sum(1, keepdims=True))
    return -np.mean(np.log(p[target == 1])), (p - target) / len(labels)


def preprocess_by_hand(images, name: str) -> np.ndarray:
    if name == "unit":
        return images / 255
    norms = np.sqrt((images.astype(float)**2).sum(1, keepdims=True))
    return images / np.where(norms == 0, 1, norms)


# Keras's first steps: the change of a parameter whose gradient is g and whose slots are empty.
# Adam's epsilon stands as in Kingma and Ba's algorithm 1, as the optimizer's docstring says.
STEPS = {
    "adam": lambda g: -1e-3 * g / (np.abs(g) + 1e-7),
    "adadelta": lambda g: -1.0 * g * np.sqrt(1e-7) / np.sqrt(0.05 * g**2 + 1e-7),
    "sgd": lambda g: -0.01 * g,
    "rmsprop": lambda g: -1e-4 / (1 + 1e-5 * 0) * g / (np.sqrt(0.1 * g**2) + 1e-8),
}
OPTIMIZERS = {"chinese_cnn": "adam", "mnist_cnn": "adadelta", "mse_cnn": "sgd",
              "kaggle_cnn": "rmsprop", "dense_cnn": "adam"}


# --- both side by side --------------------------------------------------------------------------

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
        data=dataclasses.replace(config.data, augmentation=Augmentation()),
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
    """The framework's figures and those by hand."""
    name = request.param
    config, weights, (images, labels) = recipe(name), weights_of(name), examples_of(name)
    logits, backward = forward(
        name, weights, preprocess_by_hand(images, config.data.preprocessing))
    loss, of_logits = loss_by_hand(logits, labels, config.train.loss)
    gradient = backward(of_logits)
    step = STEPS[OPTIMIZERS[name]]
    by_hand = Computed(logits, loss, gradient, jax.tree.map(
        lambda weight, g: weight + step(g), weights, gradient))

    images, labels = jnp.asarray(images), jnp.asarray(labels)
    model = build_model(config.model, DENSE[name][-1])
    optimizer = optax.chain(keep_gradient(), create_optimizer(
        config.optimizer, create_schedule(config.optimizer, 100)))
    task = TrainTask(config, model, optimizer, BatchPlan(REAL, ROWS, devices=1))

    @jax.jit
    def compute(params):
        logits = model.apply({"params": params}, preprocess(images, config.data.preprocessing))
        state, sums = train_step(
            task, create_train_state({"params": params}, optimizer, None),
            Examples(images, labels), jnp.arange(REAL), jnp.arange(ROWS),
            Streams.of(0))
        return logits, sums, state.opt_state[0], state.params

    logits, sums, gradient, after = jax.device_get(compute(jax.tree.map(np.float32, weights)))
    assert sums.examples == REAL
    assert sums.correct == (by_hand.logits.argmax(1) == np.asarray(labels)).sum()
    return name, Computed(logits, sums.loss / REAL, gradient, after), by_hand


def test_logits(both):
    _, ours, by_hand = both
    assert np.abs(by_hand.logits).max() > 0.1
    np.testing.assert_allclose(ours.logits, by_hand.logits, rtol=0, atol=2e-5)


def test_loss_of_a_train_step_is_the_mean_over_its_real_examples(both):
    _, ours, by_hand = both
    np.testing.assert_allclose(ours.loss, by_hand.loss, rtol=1e-5)


def test_gradient(both):
    _, ours, by_hand = both
    assert jax.tree.structure(ours.gradient) == jax.tree.structure(by_hand.gradient)

    def check(path, found, expected):
        largest = np.abs(expected).max()
        assert largest > 0, path
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=2e-5 * largest, err_msg=str(path))

    jax.tree_util.tree_map_with_path(check, ours.gradient, by_hand.gradient)


def test_parameters_after_a_step(both):
    """Within what a gradient wrong by 1 in 50,000 gives: the formulas are steep near zero.

    Where a unit is dead, its gradient all zero, its parameters must not move.
    """
    name, ours, by_hand = both
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

    jax.tree_util.tree_map_with_path(check, weights_of(name), ours.params, by_hand.gradient)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_gradient_by_hand_is_the_slope_of_the_loss_by_hand(loss):
    name, delta, rng = "chinese_cnn", 1e-6, np.random.default_rng(0)
    weights, (images, labels) = weights_of(name), examples_of(name)

    def loss_of():
        logits, backward = forward(name, weights, images / 255)
        value, of_logits = loss_by_hand(logits, labels, loss)
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
