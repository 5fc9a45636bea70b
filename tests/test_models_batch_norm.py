"""Batch normalization against Flax linen's own, with padding and over several devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models_layers import assert_close, jit, normal, training, weights_of

from flaxdigits.models.layers import BatchNorm, Training

MASK = np.array([True, True, False, True, True, False])


@pytest.fixture(scope="module")
def variables():
    return {"params": {"scale": 1 + 0.3 * normal(3, 5), "bias": normal(4, 5)},
            "batch_stats": {"mean": normal(6, 5), "var": np.abs(normal(7, 5)) + 0.5}}


def our_names(variables):
    statistics = variables["batch_stats"]
    return {**variables, "batch_stats": {
        "mean": statistics["mean"], "variance": statistics["var"]}}


def normalise_in_training(variables, x, train: Training):
    """Output, new averages, and gradients by parameters and input."""
    @jit
    def compute(params, x):
        def loss(params, x):
            output, updates = BatchNorm().apply(
                {**variables, "params": params}, x, train, mutable="batch_stats")
            mask = train.mask.reshape(-1, 1, 1, 1)
            return (output * weights_of(output.shape) * mask).sum(), (output, updates)

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    gradients, (output, updates) = compute(variables["params"], x)
    return output, updates["batch_stats"], gradients


def test_batch_normalization_equals_that_of_linen(variables):
    x = 3 + 2 * normal(0, 6, 3, 4, 5)
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)

    @jit
    def compute(params, x):
        def loss(params, x):
            output, updates = theirs.apply(
                {**variables, "params": params}, x, mutable="batch_stats")
            return (output * weights_of(output.shape)).sum(), (output, updates)

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    their_gradients, (their_output, their_updates) = compute(variables["params"], x)
    output, statistics, gradients = normalise_in_training(our_names(variables), x, training(6))
    assert_close(output, their_output, 2e-5)
    assert_close(gradients, their_gradients, 1e-4)
    assert_close(statistics["mean"], their_updates["batch_stats"]["mean"])
    assert_close(statistics["variance"], their_updates["batch_stats"]["var"])
    evaluated = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables, x)
    assert_close(BatchNorm().apply(our_names(variables), x, None), evaluated)


def test_batch_normalization_leaves_padding_out(variables):
    x = 3 + 2 * normal(0, 6, 3, 4, 5)
    x[~MASK] = 1e6
    output, statistics, (of_params, of_x) = normalise_in_training(
        our_names(variables), x, training(6, MASK))
    real = x[MASK].astype(float)
    mean, variance = real.mean((0, 1, 2)), real.var((0, 1, 2))
    expected = ((real - mean) / np.sqrt(variance + 1e-5) * variables["params"]["scale"]
               + variables["params"]["bias"])
    assert_close(np.asarray(output)[MASK], expected)
    before = variables["batch_stats"]
    assert_close(statistics["mean"], 0.9 * before["mean"] + 0.1 * mean)
    assert_close(statistics["variance"], 0.9 * before["var"] + 0.1 * variance)
    assert not np.asarray(of_x)[~MASK].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((of_params, of_x)))


def test_batch_normalization_is_over_all_devices(variables):
    x = 3 + 2 * normal(0, 6, 3, 4, 5)
    whole, statistics, _ = normalise_in_training(our_names(variables), x, training(6, MASK))

    def on_a_device(x, mask):
        return BatchNorm().apply(
            our_names(variables), x, Training(jnp.arange(2), mask, "devices"),
            mutable="batch_stats")

    parts, updates = jax.vmap(on_a_device, axis_name="devices")(
        x.reshape(3, 2, *x.shape[1:]), MASK.reshape(3, 2))
    assert_close(np.asarray(parts).reshape(x.shape)[MASK], np.asarray(whole)[MASK])
    for name, values in updates["batch_stats"].items():
        assert_close(values, np.stack([statistics[name]] * 3))
