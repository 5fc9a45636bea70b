"""Every network's layers, output shapes and parameters, as the published documents list them."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.models import build_model
from flaxdigits.reports.layers import layer_table, list_layers
from flaxdigits.training.state import count_parameters, init_variables

# Kind, output shape without the batch, parameters. The documents' own tables; what they leave out
# (where dropout and flattening stand) is from their code listings.
DOCUMENTS = {
    "chinese_cnn": """
        Conv     64, 64, 32       320
        MaxPool  32, 32, 32         0
        Conv     32, 32, 64     18496
        MaxPool  16, 16, 64         0
        Conv     16, 16, 128    73856
        MaxPool  8, 8, 128          0
        Flatten  8192               0
        Dense    1024         8389632
        Dense    512           524800
        Dense    256           131328
        Dense    15              3855
        """,
    "mnist_cnn": """
        Conv     26, 26, 32       320
        Conv     24, 24, 64     18496
        MaxPool  12, 12, 64         0
        Dropout  12, 12, 64         0
        Conv     11, 11, 128    32896
        Conv     10, 10, 256   131328
        MaxPool  5, 5, 256          0
        Dropout  5, 5, 256          0
        Flatten  6400               0
        Dense    128           819328
        Dropout  128                0
        Dense    10              1290
        """,
    "mse_cnn": """
        Conv     25, 25, 32       544
        MaxPool  12, 12, 32         0
        Conv     10, 10, 32      9248
        MaxPool  5, 5, 32           0
        Dropout  5, 5, 32           0
        Flatten  800                0
        Dense    10              8010
        """,
    "kaggle_cnn": """
        Conv     28, 28, 32       832
        Conv     28, 28, 32     25632
        MaxPool  14, 14, 32         0
        Dropout  14, 14, 32         0
        Conv     14, 14, 64     18496
        Conv     14, 14, 64     36928
        MaxPool  7, 7, 64           0
        Dropout  7, 7, 64           0
        Flatten  3136               0
        Dense    8192        25698304
        Dropout  8192               0
        Dense    2048        16779264
        Dropout  2048               0
        Dense    10             20490
        """,
    "dense_cnn": """
        Conv     28, 28, 32       320
        MaxPool  14, 14, 32         0
        Flatten  6272               0
        Dense    256          1605888
        Dense    256            65792
        Dropout  256                0
        Dense    10              2570
        """,
}
TOTALS = {
    "chinese_cnn": 9_142_287,
    "mnist_cnn": 1_003_658,
    "mse_cnn": 17_802,  # the document forgets the last layer's 10 biases
    "kaggle_cnn": 42_579_946,
    "dense_cnn": 1_674_570,
}
# Rates from recipes, in the order of the calls.
DROPOUT = {
    "chinese_cnn": [], "mnist_cnn": [0.25, 0.25, 0.5], "mse_cnn": [0.3],
    "kaggle_cnn": [0.5, 0.5, 0.5, 0.5], "dense_cnn": [0.1],
}
IMAGE = {"chinese_cnn": (64, 64, 1)}  # the others: (28, 28, 1)


def network(name: str, /, **changes):
    """The experiment's network and the shape of its images."""
    config = dataclasses.replace(load_experiment(name).model, **changes)
    return (build_model(config, 15 if name == "chinese_cnn" else 10),
            IMAGE.get(name, (28, 28, 1)))


def rows(document: str) -> list[tuple[str, tuple[int, ...], int]]:
    found = []
    for line in document.strip().splitlines():
        kind, *shape, parameters = line.replace(",", "").split()
        found.append((kind, tuple(map(int, shape)), int(parameters)))
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_layers_equal_those_of_the_documents(name):
    layers = list_layers(*network(name))
    assert [(layer.kind, layer.output_shape, layer.parameters) for layer in layers] == rows(
        DOCUMENTS[name])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_total_parameters_equal_those_of_the_documents(name):
    model, shape = network(name)
    variables = jax.eval_shape(lambda: init_variables(model, 0, shape))
    assert count_parameters(variables["params"]) == TOTALS[name]
    assert sum(layer.parameters for layer in list_layers(model, shape)) == TOTALS[name]
    columns = {column.header: column for column in layer_table(
        name, list_layers(model, shape)).columns}
    assert columns["Parameters"].footer == f"{TOTALS[name]:,}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_dropout_layer_has_its_rate(name, monkeypatch):
    from flaxdigits.models.layers import Dropout

    called = []
    call = Dropout.__call__

    def note(self, x, training):
        called.append((self.rate, x.shape[1:]))
        return call(self, x, training)

    monkeypatch.setattr(Dropout, "__call__", note)
    model, shape = network(name)
    jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape))))
    places = [shape for kind, shape, _ in rows(DOCUMENTS[name]) if kind == "Dropout"]
    assert called == list(zip(DROPOUT[name], places, strict=True))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_convolution_may_have_a_batch_normalization(name):
    model, shape = network(name, batch_norm=True)
    kinds = [layer.kind for layer in list_layers(model, shape)]
    assert kinds.count("BatchNorm") == kinds.count("Conv")
    assert all(kinds[i + 1] == "BatchNorm" for i, kind in enumerate(kinds) if kind == "Conv")
    variables = jax.eval_shape(lambda: init_variables(model, 0, shape))
    assert len(variables["batch_stats"]) == kinds.count("Conv")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_logits_are_float32_one_for_each_class(name):
    model, shape = network(name)
    variables = jax.eval_shape(lambda: init_variables(model, 0, shape))
    logits = jax.eval_shape(model.apply, variables, jnp.zeros((3, *shape)))
    assert logits.shape == (3, 15 if name == "chinese_cnn" else 10)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize(("changes", "message"), [
    ({"dropout": (0.1, 0.2)}, "model.dropout must be empty or have 1 rates"),
    ({"filters": (32,)}, "model.filters must have 2 numbers"),
])
def test_numbers_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(FlaxdigitsError, match=message):
        network("mse_cnn", **changes)


@pytest.mark.parametrize(("name", "size", "message"), [
    ("chinese_cnn", 4, "MaxPool_2 needs an input of at least 2x2 pixels, got 1x1"),
    ("mse_cnn", 6, "Conv_1 needs an input of at least 3x3 pixels, got 1x1"),
    ("mnist_cnn", 4, "Conv_1 needs an input of at least 3x3 pixels, got 2x2"),
])
def test_images_that_are_too_small_are_refused(name, size, message):
    model, _ = network(name)
    with pytest.raises(FlaxdigitsError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 1)), None)
