"""Losses against NumPy, with the values that Keras's definitions give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxdigits.config import TrainConfig
from flaxdigits.training.losses import example_losses

LOGITS = np.random.default_rng(0).normal(0, 2, (6, 10))
LABELS = np.array([0, 3, 9, 3, 5, 1], np.int32)


def softmax(logits):
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def losses(logits, labels, **config):
    return np.asarray(example_losses(
        jnp.asarray(logits, jnp.float32), jnp.asarray(labels), TrainConfig(**config)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_cross_entropy(smoothing):
    """Keras smooths to `y * (1 - s) + s / classes`."""
    targets = np.eye(10)[LABELS] * (1 - smoothing) + smoothing / 10
    expected = -(targets * np.log(softmax(LOGITS))).sum(1)
    found = losses(LOGITS, LABELS, loss="cross_entropy", label_smoothing=smoothing)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mse_is_the_mean_over_the_classes_of_softmax_minus_one_hot():
    expected = ((softmax(LOGITS) - np.eye(10)[LABELS])**2).mean(1)
    np.testing.assert_allclose(losses(LOGITS, LABELS, loss="mse"), expected, rtol=1e-5)
    # Knowing nothing of ten classes: 0.9^2 and nine times 0.1^2, over ten.
    np.testing.assert_allclose(losses(np.zeros((1, 10)), [4], loss="mse"), [0.09], rtol=1e-6)
    np.testing.assert_allclose(
        losses(np.zeros((1, 10)), [4], loss="cross_entropy"), [np.log(10)], rtol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_huge_logits_give_finite_losses_and_gradients(loss):
    logits = jnp.asarray([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    value, gradient = jax.jit(jax.value_and_grad(lambda logits: example_losses(
        logits, jnp.array([1, 1]), TrainConfig(loss=loss)).sum()))(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert value == pytest.approx(
        {"mse": 2 / 3 + 0.5 / 3, "cross_entropy": 2e4 + np.log(2)}[loss], rel=1e-5)
