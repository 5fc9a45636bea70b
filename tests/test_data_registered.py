"""Data sets of a researcher's own: registered by an experiment file, or given as arrays."""

import json

import numpy as np
import pytest

import flaxdigits
from flaxdigits.data.arrays import DataArrays
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.overrides import apply_overrides

pytest_plugins = ["tiny_run"]
pytestmark = pytest.mark.usefixtures("registries")

EXPERIMENT = """
    '''bars: a data set of its own.'''

    import numpy as np

    import flaxdigits
    from flaxdigits.config import DataConfig, ExperimentConfig, ModelConfig, TrainConfig


    @flaxdigits.datasets.register("bars")
    def load_bars(config):
        labels = np.arange(200) % 4
        images = np.zeros((200, 12, 12, 3), np.uint8)
        for row, label in enumerate(labels):
            images[row, 3 * label:3 * label + 3, row % 6:] = 200
        return flaxdigits.DataArrays(
            images, labels, class_names="abcd"[:], writers=np.arange(200) // 10)


    def get_config():
        return ExperimentConfig(
            "bars", ModelConfig("dense_cnn", filters=(2,), dense=(4, 4)),
            data=DataConfig(dataset="bars", split="writers"),
            train=TrainConfig(batch_size=50, steps=4))
"""


@pytest.fixture
def bars(write):
    return write(EXPERIMENT.replace('class_names="abcd"[:]', 'class_names=list("abcd")'))


def test_a_registered_data_set_is_trained_on_resumed_and_scored(
    bars, launch_here, launch, tmp_path
):
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    completed = launch_here(f"--experiment={bars}", f"--workdir={whole}")
    assert completed.returncode == 0, completed.stderr
    for more in (["--set=train.stop_after=2"], []):
        completed = launch_here(f"--experiment={bars}", f"--workdir={halted}", *more)
        assert completed.returncode == 0, completed.stderr
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, halted)]
    kept = [{name: value for name, value in result.items() if "second" not in name}
            for result in results]
    assert kept[0] == kept[1]
    assert (kept[0]["dataset"], kept[0]["train_examples"]) == ("bars", 160)

    scored = launch("--mode=eval", f"--workdir={whole}", f"--experiment={bars}")
    assert scored.returncode == 0, scored.stderr
    row = json.loads((whole / "eval.jsonl").read_text())
    assert row["test_accuracy"] == kept[0]["test_accuracy"]
    found = launch("--mode=eval", f"--workdir={whole}")
    assert found.stdout == scored.stdout, found.stderr
    bars.unlink()
    lost = launch("--mode=eval", f"--workdir={whole}")
    assert lost.returncode == 2 and lost.stderr.count("\n") == 1
    assert f"{bars}, which does not exist" in lost.stderr


@pytest.mark.parametrize(("body", "message"), [
    ("return np.zeros(3)", "load_bars must return a flaxdigits.DataArrays, got ndarray"),
    ("return flaxdigits.DataArrays(np.zeros((4, 3, 3)), [0, 1, 0, 1])",
     "data.dataset=bars: images must be uint8"),
    ("raise KeyError('part')", "mine.py:12: KeyError: 'part'"),
])
def test_an_invalid_function_is_a_one_line_error(body, message, write, launch_here):
    head, _, tail = EXPERIMENT.partition("def load_bars(config):\n")
    _, _, rest = tail.partition("// 10)\n")
    path = write(f"{head}def load_bars(config):\n        {body}\n{rest}")
    completed = launch_here("--mode=prepare", f"--experiment={path}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert message in completed.stderr


@pytest.mark.parametrize(("name", "message"), [
    ("mnist", "flaxdigits already has a data set of this name"),
    ("tfds:mnist", "the name must consist of letters"),
    ("none", "the name must consist of letters"),
])
def test_names_that_cannot_be_registered(name, message):
    with pytest.raises(FlaxdigitsError, match=message):
        flaxdigits.datasets.register(name)(lambda config: None)


def test_an_unknown_data_set_is_refused_with_the_known_ones(launch_here):
    completed = launch_here("--mode=config", "--experiment=dense_cnn", "--set=data.dataset=mnst")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert "data.dataset must be one of arrays, chinese_mnist, idx_files" in completed.stderr
    assert "did you mean mnist?" in completed.stderr


def test_arrays_are_given_in_python(tiny_config, tmp_path):
    rng = np.random.default_rng(0)
    data = DataArrays(rng.integers(0, 256, (90, 12, 12)).astype(np.uint8), np.arange(90) % 3,
                      train=80)
    config = apply_overrides(tiny_config, [
        "data.dataset=arrays", "data.folder=none", "train.steps=2", "model.dense=4,4"])
    outcome = flaxdigits.train(config, tmp_path / "run", data=data, tensorboard=False)
    assert (outcome.result["dataset"], outcome.result["test_examples"]) == ("arrays", 10)
    rows = flaxdigits.evaluate(tmp_path / "run", data=data)
    assert rows[-1]["test_accuracy"] == outcome.result["test_accuracy"]

    other = DataArrays(255 - data.images, data.labels, train=80)
    with pytest.raises(FlaxdigitsError, match="was trained on different data"):
        flaxdigits.evaluate(tmp_path / "run", data=other)
    with pytest.raises(FlaxdigitsError, match="the arrays must be passed in Python"):
        flaxdigits.evaluate(tmp_path / "run")
    with pytest.raises(FlaxdigitsError, match=r"needs data\.dataset=arrays, got idx_files"):
        flaxdigits.train(tiny_config, tmp_path / "other", data=data)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("fields", "message"), [
    ({"labels": [0, 1, 0]}, r"labels must be of shape \[4\], one for each image, got \[3\]"),
    ({"labels": [0, 1, 0, 0.5]}, "labels must be integers, got float64"),
    ({"labels": [[0], [1, 2], 1, 1]}, "labels must be an array"),
    ({"train": 0}, "train must be a number of examples from 1 to 4, got 0"),
    ({"train": True}, "train must be a number of examples"),
    ({"train": 3, "validation": 2},
     r"train \+ validation must not exceed the number of examples, 4, got 3 \+ 2"),
    ({"validation": 4}, "train must be a number of examples from 1 to 4, got 0"),
    ({"train": 1}, "a validation or test image has the label 1"),
    ({"class_names": ["a", "\udc80"]}, "class_names must be strings"),
    ({"class_names": 3}, "class_names must be strings"),
])
def test_arrays_that_do_not_fit_are_refused(fields, message):
    given = {"images": np.zeros((4, 3, 3), np.uint8), "labels": [0, 1, 0, 1]} | fields
    with pytest.raises(FlaxdigitsError, match=message):
        DataArrays(**given)
