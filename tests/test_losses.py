"""Losses against NumPy, with the values that Keras's definitions give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.losses import CrossEntropy, Focal, Loss, MeanSquaredError

pytestmark = pytest.mark.quick

LOGITS = np.random.default_rng(0).normal(0, 2, (6, 10))
LABELS = np.array([0, 3, 9, 3, 5, 1], np.int32)


def softmax(logits):
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def losses(loss, logits, labels):
    return np.asarray(loss.losses(
        jnp.asarray(logits, jnp.float32), jax.nn.one_hot(labels, np.shape(logits)[-1])))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_cross_entropy(smoothing):
    """Keras smooths to `y * (1 - s) + s / classes`."""
    targets = np.eye(10)[LABELS] * (1 - smoothing) + smoothing / 10
    expected = -(targets * np.log(softmax(LOGITS))).sum(1)
    found = losses(CrossEntropy(label_smoothing=smoothing), LOGITS, LABELS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mse_is_the_mean_over_the_classes_of_softmax_minus_one_hot():
    expected = ((softmax(LOGITS) - np.eye(10)[LABELS])**2).mean(1)
    np.testing.assert_allclose(losses(MeanSquaredError(), LOGITS, LABELS), expected, rtol=1e-5)
    # Knowing nothing of ten classes: 0.9^2 and nine times 0.1^2, over ten.
    zeros, label = np.zeros((1, 10)), np.array([4])
    np.testing.assert_allclose(losses(MeanSquaredError(), zeros, label), [0.09], rtol=1e-6)
    np.testing.assert_allclose(losses(CrossEntropy(), zeros, label), [np.log(10)], rtol=1e-6)


def test_class_weights_multiply_each_example_s_loss():
    weights = tuple(range(1, 11))
    np.testing.assert_allclose(
        losses(CrossEntropy(class_weights=weights), LOGITS, LABELS),
        losses(CrossEntropy(), LOGITS, LABELS) * np.take(weights, LABELS), rtol=1e-6)


def test_class_weights_that_are_all_zero_are_refused():
    with pytest.raises(FlaxdigitsError, match=r"train\.loss\.class_weights must not all be 0"):
        CrossEntropy(class_weights=(0.0,) * 10).check_classes(10, "train.loss")


@pytest.mark.parametrize("number", [9, 11])
def test_the_number_of_class_weights_must_equal_the_number_of_classes(number):
    with pytest.raises(FlaxdigitsError, match=r"train\.loss\.class_weights .* 10 numbers"):
        CrossEntropy(class_weights=(1.0,) * number).check_classes(10, "train.loss")


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal(gamma):
    p = softmax(LOGITS)[np.arange(6), LABELS]
    np.testing.assert_allclose(
        losses(Focal(gamma=gamma), LOGITS, LABELS), -((1 - p) ** gamma) * np.log(p), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(Loss.registered))
def test_huge_logits_give_finite_losses_and_gradients(name):
    logits = jnp.asarray([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    targets, loss = jax.nn.one_hot(np.array([1, 1]), 3), Loss.find(name, "train.loss")()
    value, gradient = jax.jit(jax.value_and_grad(
        lambda logits: loss.losses(logits, targets).sum()))(logits)
    assert np.isfinite(gradient).all()
    assert value == pytest.approx({
        "mse": 2 / 3 + 0.5 / 3, "cross_entropy": 2e4 + np.log(2),
        "focal": 2e4 + np.log(2) / 4}[name], rel=1e-5)
