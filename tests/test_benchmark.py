"""--mode=benchmark: what it measures and counts, in processes of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from flaxdigits.benchmark.compare import ROUNDS
from flaxdigits.benchmark.ours import random_data
from flaxdigits.benchmark.peers import random_images
from flaxdigits.data.splits import split_indices
from flaxdigits.experiments import load_experiment
from flaxdigits.models import build_model
from flaxdigits.overrides import apply_overrides
from flaxdigits.reports.layers import list_layers

pytest_plugins = ["tiny_run"]
SMALL = ("--set", "model.filters=2", "--set", "model.dense=4,4", "--set", "train.batch_size=8")


@pytest.fixture(scope="module")
def measured(launch, idx_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    completed = launch("--mode=benchmark", "--experiment=dense_cnn", f"--workdir={folder}",
                       "--set", "data.dataset=idx_files", "--set", f"data.folder={idx_folder}",
                       "--set", "data.split=holdout", *SMALL)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout, json.loads((folder / "benchmark.json").read_text())["experiments"]


@pytest.mark.slow
def test_operations_are_counted_from_the_layers(measured):
    _, found = measured
    convolution = 2 * 28 * 28 * 9 * 2
    dense = 2 * (14 * 14 * 2 * 4 + 4 * 4 + 4 * 10)
    assert found["dense_cnn"]["step_flops"] == 8 * (2 * convolution + 3 * dense)


@pytest.mark.slow
def test_measurements_follow_from_the_timings(measured):
    actual, found = measured
    figures = found["dense_cnn"]
    timings = figures["timings"]["ours"]["milliseconds"]
    assert len(timings) == ROUNDS
    assert sorted(timings)[ROUNDS // 2] == figures["milliseconds"] > 0
    assert figures["images_per_second"] == pytest.approx(8000 / figures["milliseconds"])
    assert figures["flops_per_second"] == pytest.approx(
        figures["step_flops"] * figures["steps_per_second"])
    assert figures["fraction_of_large_product"] == pytest.approx(
        figures["flops_per_second"] / figures["product_flops"])
    assert figures["seconds_to_first_step_warm"] > 0
    assert figures["peak_bytes"] > 50e6
    assert "dense_cnn" in actual and "benchmark.json" in actual


@pytest.mark.parametrize("arguments, message", [
    (("--experiment=dense_cnn", "--set", "model.dense=8"), "can only change train.batch_size"),
    (("--experiment=experiments/dense_cnn.py",), "peers: supports chinese_cnn"),
])
def test_peers_are_of_the_published_networks(launch_here, arguments, message):
    completed = launch_here("--mode=benchmark", "--peers", *arguments)
    assert completed.returncode == 2
    assert message in completed.stderr


def test_an_experiment_that_cannot_be_trained_is_an_error(launch, idx_folder, tmp_path):
    completed = launch("--mode=benchmark", "--experiment=dense_cnn", f"--workdir={tmp_path}",
                       "--set", "data.dataset=idx_files", "--set", f"data.folder={idx_folder}",
                       "--set", "model.filters=2,2,2,2,2,2")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert "the benchmark of ours failed" in completed.stderr


def memory_bound(name: str, batch_size: int) -> float:
    """The data, ten times the parameters, three times the activations of a batch, and 750 MB."""
    config = load_experiment(name)
    size, classes = (64, 15) if name == "chinese_cnn" else (28, 10)
    layers = list_layers(build_model(config.model, classes), (size, size, 1))
    images, labels, _ = random_images(name, batch_size)
    return (images.nbytes + labels.nbytes + 750e6
            + 10 * 4 * sum(layer.parameters for layer in layers)
            + 3 * batch_size * sum(layer.activation_bytes for layer in layers))


@pytest.mark.slow
@pytest.mark.parametrize("name, batch_size", [("kaggle_cnn", 512), ("chinese_cnn", 256)])
def test_memory_of_train_steps_is_below_the_bound(name, batch_size, environment):
    bound = memory_bound(name, batch_size)
    images, _, classes = random_images(name, batch_size)
    completed = subprocess.run(
        [sys.executable, "-m", "flaxdigits.benchmark.ours", name,
         *map(str, (*images.shape, classes, 6 * len(images) // 7)),
         f"train.batch_size={batch_size}"],
        input="2\n", text=True, capture_output=True, check=True, cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)})
    facts, found = map(json.loads, completed.stdout.splitlines())
    assert found["peak_bytes"] < bound == facts["memory_bound"]


WHOLE = """
import atexit, runpy, sys
from flaxdigits.benchmark.peers import peak_bytes
atexit.register(lambda: print("peak", peak_bytes()))
runpy.run_path("launch.py", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mse_cnn", "chinese_cnn"])
def test_memory_of_a_complete_run_is_below_the_bound(name, environment, tmp_path):
    """Scored, saved, with its page and its event files."""
    completed = subprocess.run(
        [sys.executable, "-c", WHOLE, f"--experiment={name}", "--data=synthetic",
         "--set=train.steps=30", f"--workdir={tmp_path}"],
        text=True, capture_output=True, check=True, cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)})
    assert (tmp_path / "report.html").exists() and (tmp_path / "tensorboard").exists()
    assert int(completed.stdout.split()[-1]) < memory_bound(name, 32)


def test_peak_memory_excludes_the_parent_process(environment):
    allocated = np.ones(600_000_000, np.uint8)  # touched, so that it is in memory
    found = "from flaxdigits.benchmark.peers import peak_bytes; print(peak_bytes())"
    completed = subprocess.run([sys.executable, "-c", found], text=True, capture_output=True,
                               check=True, cwd=ROOT, env=environment)
    assert allocated[-1] and 5e6 < int(completed.stdout) < 300e6


@pytest.mark.parametrize("change", [
    ["data.split=writers"], ["data.dataset=image_folder", "data.folder=mine"]])
def test_noise_stands_for_every_data_set_and_split(change):
    config = apply_overrides(load_experiment("chinese_cnn"), change)
    dataset = random_data(config, (1_500, 48, 48, 1), 15, None)
    assert dataset.name == config.data.dataset and dataset.images.shape == (1_500, 48, 48, 1)
    rows = split_indices(config.data, dataset)
    assert sum(map(len, rows.values())) == 1_500 and len(rows["train"]) == 1_200
