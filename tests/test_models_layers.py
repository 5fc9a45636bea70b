"""The layers against Flax linen's own, and what they promise beyond those."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flaxdigits.models.layers import Conv, Dense, Dropout, MaxPool, Training

FEW = {"deadline": None, "derandomize": True, "database": None}
# Every program here is compiled for one small call.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def assert_close(found, expected, relative=1e-5):
    """Equal up to a fraction of the largest expected value, array by array of the trees."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max())


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def weights_of(shape: tuple[int, ...]) -> np.ndarray:
    """What an output is weighted with, so that the gradient differs at every element."""
    return normal(5, *shape)


def assert_same_layer(ours: nn.Module, theirs: nn.Module, variables, x, jit=jit):
    """The outputs, and the gradients by variables and input."""
    def output_and_gradients(module: nn.Module, variables, x):
        output, back = jax.vjp(module.apply, variables, x)
        return output, back(weights_of(output.shape))

    @jit
    def compute(variables, x):
        return [output_and_gradients(module, variables, x) for module in (ours, theirs)]

    assert_close(*compute(variables, x))


def training(count: int, mask=None, axis_name: str | None = None) -> Training:
    mask = np.ones(count, bool) if mask is None else np.asarray(mask)
    return Training(jnp.arange(count), jnp.asarray(mask), axis_name)


# --- convolution ---------------------------------------------------------------------------------

@settings(max_examples=5, **FEW)
@given(st.tuples(st.integers(1, 5), st.integers(1, 5)),
       st.tuples(st.integers(5, 9), st.integers(5, 9)), st.integers(1, 3), st.integers(1, 4),
       st.sampled_from(["SAME", "VALID"]))
@example((3, 3), (16, 16), 2, 3, "SAME")
@example((4, 4), (9, 7), 1, 3, "VALID")
@example((2, 4), (7, 5), 2, 2, "SAME")  # even kernels: one side is padded more
@example((5, 5), (5, 5), 2, 2, "VALID")  # a single place
def test_convolution_equals_that_of_linen(kernel, image, channels, features, padding):
    x = normal(0, 2, *image, channels)
    variables = {"params": {"kernel": normal(1, *kernel, channels, features),
                            "bias": normal(2, features)}}
    assert_same_layer(Conv(features, kernel, padding=padding),
                      nn.Conv(features, kernel, padding=padding), variables, x)


def assert_convolution_is_linens(batch, kernel, image, channels, features, padding):
    """As train steps are compiled."""
    x = normal(0, batch, *image, channels)
    variables = {"params": {"kernel": normal(1, *kernel, channels, features),
                            "bias": normal(2, features)}}
    assert_same_layer(Conv(features, kernel, padding=padding),
                      nn.Conv(features, kernel, padding=padding), variables, x, jax.jit)


@pytest.mark.slow
@settings(max_examples=30, **FEW)
@given(st.integers(1, 9), st.tuples(st.integers(1, 5), st.integers(1, 5)),
       st.tuples(st.integers(5, 20), st.integers(5, 20)), st.integers(1, 40), st.integers(1, 40),
       st.sampled_from(["SAME", "VALID"]))
def test_optimised_convolutions_equal_those_of_linen(
    batch, kernel, image, channels, features, padding
):
    assert_convolution_is_linens(batch, kernel, image, channels, features, padding)


@pytest.mark.slow
@pytest.mark.parametrize("kernel, image, channels, features, padding", [
    (3, 64, 1, 32, "SAME"), (3, 32, 32, 64, "SAME"), (3, 16, 64, 128, "SAME"),  # chinese_cnn
    (3, 28, 1, 32, "VALID"), (3, 26, 32, 64, "VALID"), (2, 12, 64, 128, "VALID"),  # mnist_cnn
    (2, 11, 128, 256, "VALID"),
    (4, 28, 1, 32, "VALID"), (3, 12, 32, 32, "VALID"),  # mse_cnn
    (5, 28, 1, 32, "SAME"), (5, 28, 32, 32, "SAME"), (3, 14, 32, 64, "SAME"),  # kaggle_cnn
    (3, 14, 64, 64, "SAME"),
])
def test_convolutions_of_the_networks_equal_those_of_linen(
    kernel, image, channels, features, padding
):
    assert_convolution_is_linens(
        8, (kernel, kernel), (image, image), channels, features, padding)


# --- pooling -------------------------------------------------------------------------------------

@settings(max_examples=4, **FEW)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 3), st.integers(0, 3))
@example(7, 6, 2, 0)  # an odd row, and all values equal
@example(25, 25, 2, 2)
def test_pooling_equals_that_of_linen_even_for_equal_values(height, width, channels, largest):
    rng = np.random.default_rng(height * width)
    x = rng.integers(-1, largest, (2, height, width, channels), endpoint=True).astype(np.float32)
    gradients = rng.normal(size=(2, height // 2, width // 2, channels)).astype(np.float32)

    @jit
    def compute(x):
        ours, our_back = jax.vjp(lambda x: MaxPool().apply({}, x), x)
        theirs, their_back = jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)
        return (ours, our_back(gradients)), (theirs, their_back(gradients))

    (ours, our_gradient), (theirs, their_gradient) = compute(x)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(our_gradient[0], their_gradient[0])


# --- dense ---------------------------------------------------------------------------------------

@settings(max_examples=2, **FEW)
@given(st.integers(1, 40), st.integers(1, 20))
def test_dense_equals_that_of_linen(inputs, features):
    x = normal(0, 3, inputs)
    variables = {"params": {"kernel": normal(1, inputs, features), "bias": normal(2, features)}}
    assert_same_layer(Dense(features), nn.Dense(features), variables, x)


# --- initial values ------------------------------------------------------------------------------

@pytest.mark.parametrize(("layer", "inputs", "fan_in", "fan_out"), [
    (Conv(64, (5, 4)), (1, 8, 8, 32), 5 * 4 * 32, 5 * 4 * 64),
    (Dense(100), (1, 300), 300, 100),
])
def test_kernels_start_glorot_uniform_and_biases_at_zero(layer, inputs, fan_in, fan_out):
    params = jit(layer.init)(jax.random.key(0), jnp.zeros(inputs))["params"]
    kernel, limit = np.asarray(params["kernel"]), np.sqrt(6 / (fan_in + fan_out))
    assert 0.999 * limit < kernel.max() <= limit
    assert -limit <= kernel.min() < -0.999 * limit
    sd = np.sqrt(1 / kernel.size)  # generously, of the figures below relative to theirs
    assert abs(kernel.mean()) < 4 * sd * limit
    np.testing.assert_allclose(kernel.var(), limit**2 / 3, rtol=4 * sd)
    assert not params["bias"].any()


# --- dropout -------------------------------------------------------------------------------------

def drop(x, rate: float, places, key: int = 0):
    return np.asarray(drop_jitted(x, rate, np.asarray(places, np.int32), key))


def drop_traced(x, rate, places, key):
    return Dropout(rate).apply({}, x, Training(places, jnp.ones(len(places), bool)),
                               rngs={"dropout": jax.random.key(key)})


drop_jitted = jit(drop_traced, static_argnums=1)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.3, 0.5, 0.9])
def test_dropout_honours_its_rate_and_scales_what_stays(rate):
    x = normal(0, 50, 7, 9, 21)  # odd in number: two draws come from each random word
    dropped = drop(x, rate, np.arange(50))
    gone = dropped == 0
    expected_sd = np.sqrt(rate * (1 - rate) / gone.size)
    assert abs(gone.mean() - rate) < 4 * expected_sd
    np.testing.assert_allclose(dropped[~gone], x[~gone] / (1 - rate), rtol=1e-6)
    flat = gone.reshape(50, -1)
    assert np.abs(flat.mean(1) - rate).max() < 5 * np.sqrt(rate * (1 - rate) / flat.shape[1])
    for distance in (1, 2):  # neighbors know nothing of each other
        together = (flat[:, distance:] & flat[:, :-distance]).mean()
        assert abs(together - rate**2) < 6 * expected_sd
    assert abs((flat[1:] & flat[:-1]).mean() - rate**2) < 6 * expected_sd  # nor do examples


def test_a_dropout_mask_depends_on_key_and_place_alone():
    x = np.ones((6, 4, 5), np.float32)
    masks = drop(x, 0.5, np.arange(6))
    assert len({mask.tobytes() for mask in masks}) == 6
    order = np.array([4, 0, 5, 2, 1, 3])
    np.testing.assert_array_equal(drop(x, 0.5, order), masks[order])
    np.testing.assert_array_equal(drop(x[2:4], 0.5, [2, 3]), masks[2:4])
    np.testing.assert_array_equal(drop(x, 0.5, np.arange(6)), masks)
    assert (drop(x, 0.5, np.arange(6), key=1) != masks).any()


def test_two_dropouts_of_a_network_draw_apart():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            return Dropout(0.5)(x, training), Dropout(0.5)(x, training)

    first, second = jit(Twice().apply)(
        {}, jnp.ones((2, 50)), training(2), rngs={"dropout": jax.random.key(0)})
    assert (first != second).any()


def test_dropout_does_nothing_in_evaluation_or_at_rate_zero():
    x = jnp.asarray(normal(0, 3, 4))
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, None), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, training(3)), x)


def test_dropouts_gradient_passes_where_the_value_does():
    x, places = normal(0, 4, 30), np.arange(4, dtype=np.int32)
    gradient = jit(jax.grad(lambda x: drop_traced(x, 0.25, places, 0).sum()))(x)
    np.testing.assert_allclose(gradient, (drop(x, 0.25, places) != 0) / 0.75, rtol=1e-6)
