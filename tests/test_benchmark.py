"""--mode=benchmark: what it measures and counts, in processes of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from flaxdigits.api import gpu_suite
from flaxdigits.api.gpu_suite import PRECISIONS, SEEDS
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


@pytest.mark.parametrize("arguments, message", [
    (("--suite=tpu",), "suite must be gpu, got 'tpu'"),
    (("--suite=gpu", "--set=train.precision=bf16"), "leave out train.precision"),
])
def test_suites_are_known_and_choose_the_precisions(launch_here, tmp_path, arguments, message):
    completed = launch_here(
        "--mode=benchmark", "--experiment=mse_cnn", f"--workdir={tmp_path}", *arguments)
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert message in completed.stderr


@pytest.mark.slow
def test_the_gpu_suite_measures_all_that_it_prints(launch, idx_folder, tmp_path):
    done = launch("--mode=benchmark", "--suite=gpu", "--experiment=mnist_speedrun",
                  f"--workdir={tmp_path}", "--set=data.dataset=idx_files",
                  f"--set=data.folder={idx_folder}", "--set=data.split=holdout",
                  "--set=model.filters=2,2,2", "--set=model.dense=4", "--set=train.batch_size=16",
                  "--set=train.steps=2")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "benchmark.json").read_text())
    found = written["experiments"]["mnist_speedrun"]
    assert written["suite"] == "gpu" and found["batch_size"] == 16
    ours = {precision: found["timings"][f"flaxdigits {precision}"] for precision in PRECISIONS}
    for timing in ours.values():
        assert len(timing["milliseconds"]) == gpu_suite.ROUNDS
        assert timing["steps_per_second"] == pytest.approx(1000 / timing["median"])
        assert timing["images_per_second"] == pytest.approx(16_000 / timing["median"])
    seeds, several = found["seeds"], found["timings"]["flaxdigits fp32, 10 seeds"]
    assert seeds["count"] == SEEDS == 10
    assert seeds["relative_time"] == pytest.approx(several["median"] / ours["fp32"]["median"] / 10)
    assert several["steps_per_second"] == pytest.approx(10_000 / several["median"])
    for precision in PRECISIONS:
        result = found["time_to_accuracy"][precision]
        accuracy = result["test_accuracy"]
        assert accuracy["n"] == SEEDS and 0 < accuracy["mean"] < 0.6 and accuracy["sd"] > 0
        assert 0 < result["seconds_training"] < result["seconds_training_all_seeds"]
        assert (f"mnist_speedrun {precision}: test accuracy {100 * accuracy['mean']:.2f} % ± "
                f"{100 * accuracy['sd']:.2f} (10 seeds); {result['seconds_training']:.1f} s of "
                "training") in done.stdout
    assert f"take {seeds['relative_time']:.2f} of the time of one after another" in done.stdout
    assert all(label in done.stdout for label in found["timings"])
    assert f"all timings: {tmp_path / 'benchmark.json'}" in done.stdout


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
