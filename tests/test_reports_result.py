"""result.json field by field against an independent recount, and the tables made of results."""

import json
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.comparison import comparison_table
from flaxdigits.reports.result import (
    data_name,
    evaluation_line,
    print_result,
    print_synthetic_data_notice,
)
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


@pytest.mark.quick
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


def test_the_metrics_equal_an_independent_computation(official, idx_folder):
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


def test_rows_of_metrics_have_the_metrics_of_their_step(finished):
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


def test_the_result_is_printed_split_by_split(official, finished):
    for workdir, found in ((official, ["train", "test"]), (finished, list(SPLITS))):
        result, console = read(workdir), Console(width=200)
        with console.capture() as capture:
            print_result(console, result)
        lines = capture.get().splitlines()
        assert [line.split()[0] for line in lines[:-1]] == found
        for split, line in zip(found, lines, strict=False):
            assert f"errors {result[f'{split}_errors']} of {result[f'{split}_examples']}" in line
            assert f"accuracy {result[f'{split}_accuracy']:.4%}" in line
        assert "3,254 parameters" in lines[-1]


def test_an_evaluation_is_one_line(official):
    line = evaluation_line(read(official) | {"step": 8})
    assert line.startswith("step 8  train accuracy") and "\n" not in line
    assert "test accuracy" in line and "validation" not in line


def rows_of(table):
    """The cells of a printed table by their headings, a dictionary for each row."""
    headings = [" ".join(column.header.plain.split()) for column in table.columns[1:]]
    lines = printed(table, 300).splitlines()
    (rule,) = (number for number, line in enumerate(lines) if set(line.strip()) == {"─"})
    rows = [re.split(" {2,}", line.strip()) for line in lines[rule + 1:rule + 1 + len(table.rows)]]
    return [dict(zip(["run", *headings], row, strict=True)) for row in rows]


def test_a_comparison_has_a_row_for_each_run(official, finished):
    table = comparison_table([RunFolder(official), RunFolder(finished)])
    runs = [read(official), read(finished)]
    first, second = rows_of(table)
    assert (first["run"], second["run"]) == ("run", "tiny")
    assert (first["split"], second["split"]) == ("official", "holdout")
    assert first["validation accuracy"] == "-"
    assert second["validation accuracy"] == f"{runs[1]['validation_accuracy']:.3%}"
    assert [row["test accuracy"] for row in (first, second)] == [
        f"{run['test_accuracy']:.3%}" for run in runs]
    assert (first["learning_rate"], second["learning_rate"]) == ("0.02", "0.1")
    title = printed(table, 300).splitlines()[0]
    assert "experiment tiny, " in title and "parameters 3,254" in title and "seed 0" in title
    assert not {"parameters", "seed", "experiment", "momentum"} & first.keys()


def test_twelve_runs_are_compared_within_100_columns(finished, tmp_path):
    for run in range(12):
        path = shutil.copytree(finished, tmp_path / f"rate-{run / 100}_{run}")
        recorded = json.loads((path / "config.json").read_text())
        recorded["config"]["optimizer"]["learning_rate"] = run / 100
        recorded["config"]["seed"] = run
        (path / "config.json").write_text(json.dumps(recorded))
        (path / "result.json").write_text(json.dumps(read(path) | {"seed": run}))
    text = printed(comparison_table(sorted(tmp_path.iterdir())), 100).splitlines()
    rows = [line for line in text if "rate-" in line]
    assert len(rows) == 12 and max(map(len, text)) <= 100
    for row in rows:
        cells = re.split(" {2,}", row.strip())
        assert cells[1] == cells[0].partition("_")[2], "the seed"
        assert cells[2] == str(int(cells[1]) / 100), "the learning rate"
        assert sum(cell.endswith("%") for cell in cells) == 3


def test_further_fields_that_differ_are_named(finished, tmp_path):
    path = shutil.copytree(finished, tmp_path / "other")
    recorded = json.loads((path / "config.json").read_text())
    recorded["config"]["optimizer"] |= {"name": "adam", "learning_rate": 3, "clip_norm": 3.0}
    recorded["config"]["train"] |= {
        "batch_size": 999, "log_every": 999, "ema_decay": 0.5, "stop_after": 9}
    (path / "config.json").write_text(json.dumps(recorded))
    table = comparison_table([finished, path])
    shown = rows_of(table)[1]
    assert shown["optimizer.name"] == "adam" and shown["batch_size"] == "999"
    assert "Also different: ema_decay, log_every." in printed(table, 300)


def test_a_comparison_leaves_out_what_no_run_has(official):
    assert "validation" not in printed(comparison_table([RunFolder(official)]))


def test_a_comparison_shows_a_run_that_is_not_finished_as_such(finished_copy, finished, tmp_path):
    (finished_copy / "result.json").unlink()
    text = printed(comparison_table([RunFolder(finished), RunFolder(finished_copy)]))
    assert "copy (unfinished)" in text
    assert "experiment tiny" in text
    (finished_copy / "diverged.json").write_text('{"step": 3, "message": "no"}')
    assert "copy (diverged)" in printed(comparison_table([RunFolder(finished_copy)]))
    table = comparison_table([RunFolder(finished), RunFolder(finished_copy)])
    assert [row["test accuracy"] for row in rows_of(table)] == [
        f"{read(finished)['test_accuracy']:.3%}", "-"]
    with pytest.raises(FlaxdigitsError, match="not a run folder"):
        comparison_table([RunFolder(tmp_path / "none")])


def test_compared_runs_of_the_same_name_are_distinguished(finished, tmp_path):
    for variant in ("a", "b"):
        shutil.copytree(finished, tmp_path / variant / "seeds" / "0")
    folders = [RunFolder(path) for path in sorted(tmp_path.glob("*/seeds/0"))]
    text = printed(comparison_table(folders))
    assert "a/seeds/0" in text and "b/seeds/0" in text
    with pytest.raises(FlaxdigitsError, match="contains several runs; select one of them, such as"):
        RunFolder(tmp_path / "a").data()


@pytest.mark.quick
@pytest.mark.parametrize(("dataset", "source", "folder", "name"), [
    ("mnist", "real", None, "mnist (real)"), ("chinese_mnist", "drawn", None,
                                              "chinese_mnist (synthetic)"),
    ("arrays", "real", None, "arrays"), ("tfds:kmnist", "real", None, "tfds:kmnist"),
    ("npz", "real", "a/my_digits", "my_digits (npz)")])
def test_real_is_written_only_where_data_can_be_synthetic(dataset, source, folder, name):
    assert data_name(dataset, source, folder) == name


def test_the_notice_is_printed_for_synthetic_but_not_for_real_data():
    console = Console(width=200)
    with console.capture() as capture:
        print_synthetic_data_notice(console, "real")
    assert capture.get() == ""
    with console.capture() as capture:
        print_synthetic_data_notice(console, "drawn")
    assert capture.get().startswith("SYNTHETIC DATA")
