"""The layers of a network, and what they cost, compared with counts on paper."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from flaxdigits.experiments import load_experiment
from flaxdigits.models import ResNetConfig, build_model
from flaxdigits.reports.layers import count_flops, layer_table, list_layers

pytest_plugins = ["tiny_run"]


def test_layers_are_listed_in_the_order_of_their_calls(tiny_config):
    layers = list_layers(build_model(tiny_config.model, 10), (28, 28, 1))
    with_parameters = [(layer.kind, layer.output_shape, layer.parameters)
                       for layer in layers if layer.parameters]
    assert with_parameters == [
        ("Conv", (28, 28, 2), 20), ("Dense", (8,), 3144), ("Dense", (10,), 90)]
    assert ("MaxPool", (14, 14, 2), 0) in [
        (layer.kind, layer.output_shape, layer.parameters) for layer in layers]
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        console.print(layer_table("tiny", layers))
    table = capture.get()
    assert "(None, 14, 14, 2)" in table and "3,144" in table and "3,254" in table
    total = next(line for line in table.splitlines() if "Total" in line)
    assert f"{2 * (28 * 28 * 2 * 9 + 392 * 8 + 80):,}" in total
    assert f"{4 * (1568 + 392 + 392 + 8 + 10) / 1024:.1f} KiB" in total


# 2 x outputs x (window x input features), layer by layer.
FORWARD_FLOPS = {
    "chinese_cnn": 2 * (64 * 64 * 32 * 9 + 32 * 32 * 64 * 9 * 32 + 16 * 16 * 128 * 9 * 64
                        + 8192 * 1024 + 1024 * 512 + 512 * 256 + 256 * 15),
    "mnist_cnn": 2 * (26 * 26 * 32 * 9 + 24 * 24 * 64 * 9 * 32 + 11 * 11 * 128 * 4 * 64
                      + 10 * 10 * 256 * 4 * 128 + 6400 * 128 + 128 * 10),
    "mse_cnn": 2 * (25 * 25 * 32 * 16 + 10 * 10 * 32 * 9 * 32 + 800 * 10),
    "kaggle_cnn": 2 * (28 * 28 * 32 * 25 + 28 * 28 * 32 * 25 * 32 + 14 * 14 * 64 * 9 * 32
                       + 14 * 14 * 64 * 9 * 64 + 3136 * 8192 + 8192 * 2048 + 2048 * 10),
    "dense_cnn": 2 * (28 * 28 * 32 * 9 + 6272 * 256 + 256 * 256 + 256 * 10),
}
FIRST_LAYER = {"chinese_cnn": 64 * 64 * 32 * 9, "mnist_cnn": 26 * 26 * 32 * 9,
               "mse_cnn": 25 * 25 * 32 * 16, "kaggle_cnn": 28 * 28 * 32 * 25,
               "dense_cnn": 28 * 28 * 32 * 9}
# Numbers that each network's layers give out: convolution, pooling, (dropout, flatten,) dense.
OUTPUTS = {
    "chinese_cnn": (64 * 64 * 32 + 32 * 32 * 32 + 32 * 32 * 64 + 16 * 16 * 64 + 16 * 16 * 128
                    + 2 * 8192 + 1024 + 512 + 256 + 15),
    "mnist_cnn": (26 * 26 * 32 + 24 * 24 * 64 + 2 * 12 * 12 * 64 + 11 * 11 * 128 + 10 * 10 * 256
                  + 3 * 6400 + 2 * 128 + 10),
    "mse_cnn": 25 * 25 * 32 + 12 * 12 * 32 + 10 * 10 * 32 + 3 * 800 + 10,
    "kaggle_cnn": (2 * 28 * 28 * 32 + 2 * 14 * 14 * 32 + 2 * 14 * 14 * 64 + 3 * 3136 + 2 * 8192
                   + 2 * 2048 + 10),
    "dense_cnn": 28 * 28 * 32 + 2 * 6272 + 3 * 256 + 10,
}


@pytest.mark.parametrize("name", FORWARD_FLOPS)
def test_costs_equal_an_independent_count(name):
    size, classes = (64, 15) if name == "chinese_cnn" else (28, 10)
    model = build_model(load_experiment(name).model, classes)
    layers = list_layers(model, (size, size, 1))
    assert sum(layer.flops for layer in layers) == FORWARD_FLOPS[name]
    assert sum(layer.activation_bytes for layer in layers) == 4 * OUTPUTS[name]

    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 1)))
    images = jax.ShapeDtypeStruct((32, size, size, 1), jnp.float32)
    assert count_flops(model.apply, variables, images) == 32 * FORWARD_FLOPS[name]


# Without padding, as in the other networks, XLA's gradients of convolutions cost more.
@pytest.mark.parametrize("name", ["chinese_cnn", "kaggle_cnn", "dense_cnn"])
def test_costs_of_gradients_equal_an_independent_count(name):
    size, classes = (64, 15) if name == "chinese_cnn" else (28, 10)
    model = build_model(load_experiment(name).model, classes)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 1)))
    images = jax.ShapeDtypeStruct((32, size, size, 1), jnp.float32)
    # A product for each kernel and one for each input, except the images.
    backward = jax.grad(lambda variables, images: model.apply(variables, images).sum())
    assert count_flops(backward, variables, images) == 32 * (
        3 * FORWARD_FLOPS[name] - 2 * FIRST_LAYER[name])


def test_flops_of_programs():
    matrix, vector = jnp.ones((3, 4)), jnp.ones(4)
    assert count_flops(lambda a, b: a @ b, matrix, vector) == 2 * 12
    assert count_flops(lambda a, b: jnp.exp(a).sum() + b.sum(), matrix, vector) == 0
    assert count_flops(jax.vmap(lambda row: row @ vector), matrix) == 2 * 12
    scan = jax.jit(lambda a, b: jax.lax.scan(lambda c, _: (c, a @ b), 0, length=5))
    assert count_flops(scan, matrix, vector) == 5 * 2 * 12
    branch = functools.partial(jax.lax.cond, True, lambda: matrix @ vector, lambda: jnp.zeros(3))
    assert count_flops(branch) == 2 * 12
    image, kernel = jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 2, 9))

    def conv(image, kernel, **options):
        return jax.lax.conv_general_dilated(
            image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)

    forward = 2 * (2 * 4 * 4 * 9) * (3 * 3 * 2)
    grouped = functools.partial(conv, feature_group_count=3)
    assert count_flops(grouped, image, kernel) == forward


def test_linen_layers_with_keyword_arguments():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, training=None):
            x = nn.Conv(4, (3, 3), strides=2, name="first")(x)
            x = nn.BatchNorm(name="norm")(x, use_running_average=training is None)
            x = nn.Dropout(0.5, name="drop")(x, deterministic=True)
            shared = nn.Dense(4, name="shared")
            return shared(shared(x)).mean((1, 2))

    layers = list_layers(Own(), (8, 6, 1))
    assert [(layer.name, layer.flops, layer.parameters) for layer in layers] == [
        ("first", 2 * 4 * 3 * 4 * 9, 40), ("norm", 0, 8), ("drop", 0, 0),
        ("shared", 2 * 4 * 3 * 16, 20), ("shared", 2 * 4 * 3 * 16, 0)]


def test_parameters_of_the_network_itself_are_counted():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, training=None):
            x = nn.Dense(7)(x.reshape(len(x), -1))
            return x @ self.param("matrix", nn.initializers.ones, (7, 5))

    layers = list_layers(Own(), (8, 6, 1))
    assert [(layer.name, layer.output_shape, layer.flops, layer.parameters) for layer in layers] \
        == [("Dense_0", (7,), 2 * 48 * 7, 49 * 7), ("Own", (5,), 2 * 7 * 5, 35)]


def test_layers_of_blocks_are_listed_once_and_by_their_paths():
    layers = list_layers(build_model(ResNetConfig(), 10), (28, 28, 1))
    names = [layer.name for layer in layers]
    assert names[:4] == [
        "Conv_0", "Norm_0/BatchNorm_0", "ResidualBlock_0/Conv_0",
        "ResidualBlock_0/Norm_0/BatchNorm_0"]
    assert len(set(names)) == len(names) == 21
    assert "ResidualBlock_2/Conv_2" in str(layer_table("a", layers).columns[0]._cells)


def test_what_outer_modules_compute_is_counted_once_a_call():
    class Middle(nn.Module):
        @nn.compact
        def __call__(self, x):
            both = self.param("both", lambda key: (jnp.ones((6, 6)), jnp.ones(6)))
            return nn.Dense(6)(x) @ both[0] + both[1]

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, training=None):
            middle = Middle(name="middle")
            x = middle(middle(x.reshape(len(x), -1)))
            return x @ self.param("matrix", nn.initializers.ones, (6, 5))

    layers = list_layers(Own(), (3, 2, 1))
    assert [(layer.name, layer.flops, layer.parameters) for layer in layers] == [
        ("middle/Dense_0", 72, 42), ("middle", 72, 42), ("middle/Dense_0", 72, 0),
        ("middle", 72, 0),
        ("Own", 60, 30)]
