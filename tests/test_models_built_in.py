"""The built-in models: parameters, any number of channels, gradients, seeds under vmap."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from test_models_layers import assert_close, assert_same_layer, jit, normal, training

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models import (
    ChineseCnnConfig,
    DenseCnnConfig,
    KaggleCnnConfig,
    LeNet5Config,
    MlpConfig,
    MnistCnnConfig,
    Model,
    MseCnnConfig,
    ResNetConfig,
    VitConfig,
    build_model,
)
from flaxdigits.models.layers import AvgPool
from flaxdigits.models.resnet import ResidualBlock
from flaxdigits.models.vit import Attention, split_into_patches
from flaxdigits.training.state import count_parameters, init_variables

SMALL = {
    "chinese_cnn": ChineseCnnConfig((2, 3), (4,), (), True),
    "dense_cnn": DenseCnnConfig((2,), (4,), ()),
    "kaggle_cnn": KaggleCnnConfig((2, 2, 3, 3), (4,), ()),
    "lenet5": LeNet5Config(),
    "lenet5 relu": LeNet5Config(activation="relu"),
    "mlp": MlpConfig((6,), 0.2),
    "mnist_cnn": MnistCnnConfig((2, 2, 3, 3), (4,), ()),
    "mse_cnn": MseCnnConfig((2, 3), (), ()),
    "resnet": ResNetConfig(width=4),
    "resnet group": ResNetConfig(width=4, norm="group"),
    "vit": VitConfig(patch_size=7, depth=2, heads=2, width=8, dropout=0.1),
}
CASES = pytest.mark.parametrize("name", SMALL)
# The five replicated networks have test_models_gradients.py.
NEW = pytest.mark.parametrize("name", ["lenet5", "mlp", "resnet", "resnet group", "vit"])


def initialized(config, shape=(28, 28, 1), classes=10, seed=0):
    model = build_model(config, classes)
    return model, jax.device_get(init_variables(model, seed, shape))


def parameters(config, shape=(28, 28, 1)):
    model = build_model(config, 10)
    return count_parameters(jax.eval_shape(lambda: init_variables(model, 0, shape))["params"])


def test_every_registered_model_is_tested_here():
    assert {config.name for config in SMALL.values()} == {
        name for name, cls in Model.registered.items() if cls.__module__.startswith("flaxdigits.")}


def test_lenet5_has_the_parameters_of_the_paper_with_full_connections():
    # The paper: C1 156, C5 48,120, F6 10,164. C3 sees all maps here, and the output is dense.
    assert parameters(LeNet5Config()) == 156 + 2_416 + 48_120 + 10_164 + 850


def test_mlp_parameters():
    assert parameters(MlpConfig((100, 50))) == 784 * 100 + 100 + 100 * 50 + 50 + 50 * 10 + 10


@pytest.mark.parametrize("depth", [1, 3])
def test_a_resnet_of_depth_n_has_6_n_plus_2_layers(depth):
    """And the parameters of He et al.'s networks, plus biases and the two projections."""
    variables = jax.eval_shape(
        lambda: init_variables(build_model(ResNetConfig(depth), 10), 0, (28, 28, 1)))
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
               if path[-1].key == "kernel"]
    projections = [kernel for kernel in kernels if kernel.shape[:2] == (1, 1)]
    assert len(kernels) - len(projections) == 6 * depth + 2
    assert [kernel.shape for kernel in projections] == [(1, 1, 16, 32), (1, 1, 32, 64)]


def test_vit_parameters():
    width, patches = 32, 49
    block = 4 * (width * width + width) + 2 * 2 * width + 8 * width * width + 5 * width
    assert parameters(VitConfig(4, depth=3, heads=4, width=width)) == (
        16 * width + width + patches * width + 3 * block + 2 * width + width * 10 + 10)


@CASES
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels_and_any_size_give_float32_logits(name, channels):
    for size in (28, 63):
        model = build_model(SMALL[name], 7)

        def apply(model=model, size=size):
            images = jnp.zeros((3, size, size, channels))
            return model.init_with_output(jax.random.key(0), images, None)[0]

        logits = jax.eval_shape(apply)
        assert logits.shape == (3, 7) and logits.dtype == jnp.float32


@NEW
def test_every_parameter_has_a_gradient(name):
    model, variables = initialized(SMALL[name], (14, 14, 3))
    images = np.abs(normal(1, 6, 14, 14, 3))

    @jit
    def gradient(params):
        def loss(params):
            logits, _ = model.apply(
                {**variables, "params": params}, images, training(6),
                rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"])
            return jnp.square(logits - normal(2, 6, 10)).sum()

        return jax.grad(loss)(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@NEW
def test_seeds_under_vmap_equal_single_seeds(name):
    """In training, with batch statistics and dropout, as several seeds are trained on a GPU."""
    model = build_model(SMALL[name], 10)
    images = np.abs(normal(1, 6, 14, 14, 1))
    alone = [jax.device_get(init_variables(model, seed, (14, 14, 1))) for seed in (0, 1)]

    def apply(variables, key):
        return model.apply(variables, images, training(6, [1, 1, 1, 1, 1, 0]),
                           rngs={"dropout": key}, mutable=["batch_stats"])

    keys = jax.random.split(jax.random.key(3), 2)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    together = jit(jax.vmap(apply))(stacked, keys)
    for seed in (0, 1):
        assert_close(jax.tree.map(lambda leaf, seed=seed: leaf[seed], together),
                     jit(apply)(alone[seed], keys[seed]), 1e-4)


@pytest.mark.parametrize("name", ["resnet group", "vit"])
def test_exported_programs_take_any_batch(name):
    model, variables = initialized(SMALL[name])
    batch, = export.symbolic_shape("batch")
    program = export.export(jax.jit(lambda images: model.apply(variables, images, None)))(
        jax.ShapeDtypeStruct((batch, 28, 28, 1), jnp.float32))
    images = np.abs(normal(1, 3, 28, 28, 1))
    np.testing.assert_allclose(
        program.call(images), model.apply(variables, images, None), rtol=1e-4, atol=1e-5)


def test_mean_pooling_equals_that_of_linen():
    ours, theirs = AvgPool(), nn.Sequential([lambda x: nn.avg_pool(x, (2, 2), (2, 2))])
    for shape in ((2, 4, 6, 3), (2, 5, 7, 1)):
        assert_same_layer(ours, theirs, {}, normal(0, *shape))


def test_attention_equals_that_of_linen():
    x = normal(0, 2, 5, 8)
    variables = jax.device_get(Attention(2).init(jax.random.key(0), x))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * normal(1, *leaf.shape), variables["params"])
    theirs = {
        name: {"kernel": params[layer]["kernel"].reshape(8, 2, 4),
               "bias": params[layer]["bias"].reshape(2, 4)}
        for name, layer in (("query", "Dense_0"), ("key", "Dense_1"), ("value", "Dense_2"))}
    theirs["out"] = {"kernel": params["Dense_3"]["kernel"].reshape(2, 4, 8),
                     "bias": params["Dense_3"]["bias"]}
    assert_close(Attention(2).apply({"params": params}, x),
                 nn.MultiHeadDotProductAttention(2).apply({"params": theirs}, x), 1e-5)


def test_a_residual_block_adds_its_input():
    x = np.abs(normal(0, 2, 6, 6, 4))
    for norm in ("batch", "group"):
        block = ResidualBlock(4, norm)
        variables = block.init(jax.random.key(0), x, None)
        silent = jax.tree.map(jnp.zeros_like, variables["params"])
        np.testing.assert_array_equal(
            block.apply({**variables, "params": silent}, x, None), x)


def test_patches_are_squares_of_the_image_in_reading_order():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = split_into_patches(jnp.asarray(images), 2)
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[1, 4], images[1, 2:4, 2:4].reshape(-1))


def test_fields_that_do_not_fit_are_refused():
    with pytest.raises(FlaxdigitsError, match=r"model\.heads must divide model\.width=8, got 3"):
        build_model(VitConfig(heads=3, width=8), 10)
    model = build_model(VitConfig(patch_size=5), 10)
    with pytest.raises(FlaxdigitsError, match="height and width of the images, 28x28, got 5"):
        jax.eval_shape(lambda: init_variables(model, 0, (28, 28, 1)))
