"""result.json field by field against an independent recount, and the tables made of results."""

import functools
import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.models import build_model
from flaxdigits.reports.comparison import comparison_table
from flaxdigits.reports.layers import count_flops, layer_table, list_layers
from flaxdigits.reports.result import evaluation_line, tell_of_drawn_data, tell_result
from flaxdigits.training.checkpoints import Checkpoints
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]

SPLITS = ("train", "validation", "test")
TYPES = {
    "experiment": str, "dataset": str, "data_source": str, "split": str, "seed": int,
    "parameters": int, "steps": int, "epochs": float, "checkpoint": str, "checkpoint_step": int,
    **{f"{split}_{name}": kind for split in SPLITS for name, kind in (
        ("accuracy", float), ("loss", float), ("errors", int), ("examples", int))},
    "train_accuracy_running": float, "seconds_compiling": float, "seconds_training": float,
    "seconds_evaluating": float, "steps_per_second": float, "device": str, "deterministic": bool,
}


def read(workdir):
    return json.loads((workdir / "result.json").read_text())


def logits_of(params, images):
    """The tiny dense_cnn in NumPy float64: conv 3x3 same, ReLU, pool 2, dense, ReLU, dense."""
    params = {layer: {name: np.asarray(array, np.float64) for name, array in arrays.items()}
              for layer, arrays in params.items()}
    padded = np.pad(images / 255, ((0, 0), (1, 1), (1, 1)))
    kernel = params["Conv_0"]["kernel"]
    x = sum(padded[:, row:row + 28, column:column + 28, None] * kernel[row, column, 0]
            for row in range(3) for column in range(3)) + params["Conv_0"]["bias"]
    x = np.maximum(x, 0).reshape(-1, 14, 2, 14, 2, 2).max((2, 4)).reshape(len(images), -1)
    x = np.maximum(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    return x @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def idx_part(folder, part):
    images = np.fromfile(folder / f"{part}-images-idx3-ubyte", np.uint8)[16:]
    labels = np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8)[8:]
    return images.reshape(-1, 28, 28), labels


def saved_params(workdir):
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        return checkpoints.restore_arrays(checkpoints.last())["params"]
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def official(train_tiny, tmp_path_factory):
    """A finished run that has a test split and no validation split."""
    workdir = tmp_path_factory.mktemp("official") / "run"
    train_tiny(workdir, "data.split=official", "train.steps=none", "train.epochs=2",
               "train.batch_size=64", "train.log_every=1", "optimizer.learning_rate=0.02")
    return workdir


def test_the_result_has_its_fields_and_their_types(finished):
    result = read(finished)
    assert {name: type(value) for name, value in result.items()} == TYPES
    assert (result["experiment"], result["dataset"], result["data_source"]) == (
        "tiny", "idx_files", "real")
    assert (result["split"], result["seed"], result["steps"]) == ("holdout", 0, 6)
    assert result["epochs"] == 6 / 4  # 183 examples in batches of 50
    assert [result[f"{split}_examples"] for split in SPLITS] == [183, 17, 70]
    assert result["parameters"] == (9 * 2 + 2) + (14 * 14 * 2 * 8 + 8) + (8 * 10 + 10)
    assert result["device"] == "cpu x 1" and result["deterministic"] is True
    assert result["steps_per_second"] == pytest.approx(6 / result["seconds_training"])
    assert min(result[f"seconds_{name}"] for name in ("compiling", "training", "evaluating")) > 0


@pytest.mark.parametrize(("split", "absent"), [("official", "validation"), ("random", "test")])
def test_a_split_that_does_not_exist_is_null(split, absent, train_tiny, tmp_path):
    train_tiny(tmp_path, f"data.split={split}", "train.steps=1")
    result = read(tmp_path)
    null = {name for name, value in result.items() if value is None}
    assert null == {f"{absent}_{name}" for name in ("accuracy", "loss", "errors", "examples")}
    assert result.keys() == TYPES.keys()


def test_the_figures_equal_an_independent_recount(official, idx_folder):
    result, params = read(official), saved_params(official)
    for split, part, count in (("train", "train", 200), ("test", "t10k", 70)):
        images, labels = idx_part(idx_folder, part)
        logits = logits_of(params, images)
        errors = int((logits.argmax(1) != labels).sum())
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(count), labels]
        assert 0 < errors < count, "a recount of nothing but zeros would prove little"
        assert result[f"{split}_examples"] == count
        assert result[f"{split}_errors"] == errors
        assert result[f"{split}_accuracy"] == pytest.approx(1 - errors / count, abs=1e-12)
        assert result[f"{split}_loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_the_running_accuracy_is_that_of_the_last_epoch(official):
    result = read(official)
    rows = RunFolder(official).rows("metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    sizes = [64, 64, 64, 8]
    correct = sum(row["train_accuracy"] * size for row, size in zip(rows[4:], sizes, strict=True))
    assert result["train_accuracy_running"] == pytest.approx(correct / 200, abs=1e-6)
    assert result["epochs"] == 2.0


def test_metrics_rows_have_the_figures_of_their_step(finished):
    rows = RunFolder(finished).rows("metrics.jsonl")
    result = read(finished)
    assert [row["step"] for row in rows if "validation_loss" in row] == [4, 6]
    assert [row["epoch"] for row in rows if row["step"] in (4, 6)] == [1, 2]
    assert rows[-1]["validation_accuracy"] == result["validation_accuracy"]
    assert rows[-1]["validation_loss"] == pytest.approx(result["validation_loss"], rel=1e-6)
    assert all(row["learning_rate"] == pytest.approx(0.1) for row in rows)


def printed(thing, width=200):
    console = Console(width=width, highlight=False, soft_wrap=False)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def test_the_result_is_told_split_by_split(official, finished):
    for workdir, told in ((official, ["train", "test"]), (finished, list(SPLITS))):
        result, console = read(workdir), Console(width=200)
        with console.capture() as capture:
            tell_result(console, result)
        lines = capture.get().splitlines()
        assert [line.split()[0] for line in lines[:-1]] == told
        for split, line in zip(told, lines, strict=False):
            assert f"errors {result[f'{split}_errors']} of {result[f'{split}_examples']}" in line
            assert f"accuracy {result[f'{split}_accuracy']:.4%}" in line
        assert "3,254 parameters" in lines[-1]


def test_an_evaluation_is_one_line(official):
    line = evaluation_line(read(official) | {"step": 8})
    assert line.startswith("step 8  train accuracy") and "\n" not in line
    assert "test accuracy" in line and "validation" not in line


def test_a_comparison_has_a_column_a_run(official, finished):
    lines = printed(comparison_table([RunFolder(official), RunFolder(finished)])).splitlines()
    cells = {row[1].strip(): [cell.strip() for cell in row[2:4]]
             for row in (line.replace("┃", "│").split("│") for line in lines) if len(row) > 3}
    one, two = read(official), read(finished)
    assert cells[""] == ["run", "tiny"]
    assert cells["split"] == ["official", "holdout"]
    assert cells["validation_accuracy"] == ["-", f"{two['validation_accuracy']:.3%}"]
    assert cells["test_accuracy"] == [f"{run['test_accuracy']:.3%}" for run in (one, two)]
    assert cells["parameters"] == ["3,254", "3,254"]


def test_a_comparison_leaves_out_what_no_run_has(official):
    assert "validation_accuracy" not in printed(comparison_table([RunFolder(official)]))


def test_a_comparison_shows_a_run_that_is_not_finished_as_such(finished_copy, finished, tmp_path):
    (finished_copy / "result.json").unlink()
    text = printed(comparison_table([RunFolder(finished), RunFolder(finished_copy)]))
    assert "copy (unfinished)" in text
    experiment = next(line for line in text.splitlines() if "experiment" in line)
    assert experiment.count(" tiny ") == 2
    (finished_copy / "diverged.json").write_text('{"step": 3, "told": "no"}')
    assert "copy (diverged)" in printed(comparison_table([RunFolder(finished_copy)]))
    row = next(line for line in text.splitlines() if "test_accuracy" in line)
    assert [cell.strip() for cell in row.split("│")[2:4]] == [
        f"{read(finished)['test_accuracy']:.3%}", "-"]
    with pytest.raises(FlaxdigitsError, match="not a run folder"):
        comparison_table([RunFolder(tmp_path / "none")])


def test_compared_runs_of_the_same_name_are_told_apart(finished, tmp_path):
    for variant in ("a", "b"):
        shutil.copytree(finished, tmp_path / variant / "seeds" / "0")
    folders = [RunFolder(path) for path in sorted(tmp_path.glob("*/seeds/0"))]
    text = printed(comparison_table(folders))
    assert "a/seeds/0" in text and "b/seeds/0" in text
    with pytest.raises(FlaxdigitsError, match="holds several runs; name one of them, such as"):
        RunFolder(tmp_path / "a").data()


def test_layers_are_listed_in_the_order_of_their_calls(tiny_config):
    layers = list_layers(build_model(tiny_config.model, 10), (28, 28, 1))
    with_parameters = [(layer.kind, layer.output_shape, layer.parameters)
                       for layer in layers if layer.parameters]
    assert with_parameters == [
        ("Conv", (28, 28, 2), 20), ("Dense", (8,), 3144), ("Dense", (10,), 90)]
    assert ("MaxPool", (14, 14, 2), 0) in [
        (layer.kind, layer.output_shape, layer.parameters) for layer in layers]
    table = printed(layer_table("tiny", layers))
    assert "(None, 14, 14, 2)" in table and "3,144" in table and "3,254" in table
    total = next(line for line in table.splitlines() if "Total" in line)
    assert f"{2 * (28 * 28 * 2 * 9 + 392 * 8 + 80):,}" in total
    assert f"{4 * (1568 + 392 + 392 + 8 + 10) / 1024:.1f} KiB" in total


def test_drawn_data_is_told_and_real_data_is_not():
    console = Console(width=200)
    with console.capture() as capture:
        tell_of_drawn_data(console, "real")
    assert capture.get() == ""
    with console.capture() as capture:
        tell_of_drawn_data(console, "drawn")
    assert capture.get().startswith("DRAWN DATA")


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
def test_costs_are_those_counted_by_hand(name):
    size, classes = (64, 15) if name == "chinese_cnn" else (28, 10)
    model = build_model(load_experiment(name).model, classes)
    layers = list_layers(model, (size, size, 1))
    assert sum(layer.flops for layer in layers) == FORWARD_FLOPS[name]
    assert sum(layer.activation_bytes for layer in layers) == 4 * OUTPUTS[name]

    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 1)))
    images = jax.ShapeDtypeStruct((32, size, size, 1), jnp.float32)
    assert count_flops(model.apply, variables, images) == 32 * FORWARD_FLOPS[name]
    if name in ("mnist_cnn", "mse_cnn"):
        return  # XLA's gradient of a convolution without padding has some: more than a product
    # Backward is a product for the kernel and one for the input, which the images need not.
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


def test_layers_of_linens_own_that_are_told_things_in_words():
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
        ("shared", 2 * 4 * 3 * 16, 20), ("shared", 2 * 4 * 3 * 16, 20)]
