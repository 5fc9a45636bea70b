"""`train.init_from`: a run that starts from the weights of another."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from test_checkpoints import opened, refusal  # noqa: F401

from flaxdigits.overrides import apply_overrides
from flaxdigits.training import runs
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.weights import split_checkpoint

pytest_plugins = ["tiny_run"]


def params_of(checkpoints):
    return checkpoints.restore_arrays(checkpoints.last())["params"]


def test_init_from_takes_the_weights_of_another_run(
    finished, train_tiny, opened, tmp_path  # noqa: F811
):
    train_tiny(tmp_path, f"train.init_from={finished}", "train.steps=1", "seed=9",
               "optimizer.learning_rate=1e-9")
    first = params_of(opened(finished / "checkpoints"))
    second = params_of(opened(tmp_path / "checkpoints"))
    for layer, arrays in first.items():
        for name, array in arrays.items():
            np.testing.assert_allclose(second[layer][name], array, atol=1e-6, err_msg=layer)


def test_only_missing_layers_are_initialized(tiny_config, tiny_data):
    experiment = Experiment.create(tiny_config, tiny_data)
    fresh = experiment.initial_state()
    given = jax.tree.map(lambda array: array + 1, fresh.variables())
    uninitialized = dataclasses.replace(
        experiment, task=dataclasses.replace(experiment.task, model=None))  # which has no `init`
    copied = uninitialized.initial_state(given).params
    jax.tree.map(np.testing.assert_array_equal, copied, given["params"])
    del given["params"]["Dense_1"]
    mixed = experiment.initial_state(given).params
    jax.tree.map(np.testing.assert_array_equal, mixed, given["params"] | {
        "Dense_1": fresh.params["Dense_1"]})


def test_a_note_names_other_preprocessing(train_tiny, tmp_path, caplog):
    train_tiny(tmp_path / "first", "train.steps=2")
    for preprocessing, noted in (("unit", False), ("raw", True)):
        caplog.clear()
        train_tiny(tmp_path / preprocessing, f"train.init_from={tmp_path / 'first'}",
                   "train.steps=1", f"data.preprocessing={preprocessing}")
        assert noted == (
            f"train.init_from: {tmp_path / 'first'} was trained with data.preprocessing=unit, and "
            "this run has raw" in caplog.messages)


def test_init_from_takes_the_averaged_weights_where_there_are_any(
    train_tiny, opened, tmp_path  # noqa: F811
):
    train_tiny(tmp_path / "ema", "train.ema_decay=0.9", "train.steps=4")
    train_tiny(tmp_path / "next", f"train.init_from={tmp_path / 'ema'}", "train.steps=1",
               "optimizer.learning_rate=1e-9")
    saved = opened(tmp_path / "ema" / "checkpoints").restore_arrays(4)
    averaged, latest = saved["ema"]["Dense_0"]["kernel"], saved["params"]["Dense_0"]["kernel"]
    taken = params_of(opened(tmp_path / "next" / "checkpoints"))["Dense_0"]["kernel"]
    np.testing.assert_allclose(taken, averaged, atol=1e-6)
    assert not np.allclose(taken, latest, atol=1e-6)


def test_init_from_a_step_of_a_run(finished, launch_here, opened, idx_folder, tmp_path):  # noqa: F811
    recipe = ("--experiment=dense_cnn", "--set=data.dataset=idx_files",
              f"--set=data.folder={idx_folder}", "--set=data.split=holdout",
              "--set=model.filters=2", "--set=model.dense=8", "--set=train.steps=1",
              "--set=seed=9", "--set=optimizer.learning_rate=1e-9", "--notensorboard")
    done = launch_here(*recipe, f"--set=train.init_from={finished}@2",
                       f"--workdir={tmp_path / 'from_2'}")
    assert done.returncode == 0, done.stderr
    source = opened(finished / "checkpoints").restore_arrays(2)["params"]["Dense_0"]["kernel"]
    taken = params_of(opened(tmp_path / "from_2" / "checkpoints"))["Dense_0"]["kernel"]
    np.testing.assert_allclose(taken, source, atol=1e-6)
    done = launch_here(*recipe, f"--set=train.init_from={finished}@3",
                       f"--workdir={tmp_path / 'from_3'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "has no checkpoint '3': expected last, best or one of the steps 2, 4, 6" in done.stderr


def test_init_from_refuses_other_shapes_and_other_folders(finished, train_tiny, tmp_path):
    other = refusal(train_tiny, tmp_path / "a", f"train.init_from={finished}", "model.dense=9")
    assert other == (
        f"train.init_from: the weights of {finished} do not fit this run: model.dense is [8] in "
        "that run and [9] in this run; layers that differ: Dense_0, Dense_1")
    none = refusal(train_tiny, tmp_path / "b", f"train.init_from={tmp_path}")
    assert f"train.init_from: {tmp_path}: not a run folder" in none
    assert list(tmp_path.iterdir()) == []


def test_init_from_names_another_image_size(finished, launch_here, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (80, 20, 20)).astype(np.uint8)
    np.savez(tmp_path / "small.npz", images=images, labels=np.arange(80) % 10)
    done = launch_here(
        "--experiment=dense_cnn", "--set=data.dataset=npz", "--set=data.split=holdout",
        f"--set=data.folder={tmp_path / 'small.npz'}", "--set=model.filters=2",
        "--set=model.dense=8", f"--set=train.init_from={finished}", f"--workdir={tmp_path / 'a'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.endswith(
        " do not fit this run: the image shape is [28, 28, 1] in that run and [20, 20, 1] in this "
        "run; layers that differ: Dense_0\n")


@pytest.mark.parametrize("name", ["a@best", "a@2"])
def test_an_existing_folder_with_an_at_sign_is_a_folder(name, finished, train_tiny, tmp_path):
    source = Path(shutil.copytree(finished, tmp_path / name))
    path, which = split_checkpoint(str(source))
    assert (path, which) == (str(source), "last")
    assert split_checkpoint(f"{source}@4") == (str(source), "4")
    train_tiny(tmp_path / "next", f"train.init_from={source}", "train.steps=1")
    shutil.copytree(finished, tmp_path / "a")
    assert split_checkpoint(f"{tmp_path / 'a'}/@best") == (f"{tmp_path / 'a'}/", "best")


def test_a_run_does_not_need_the_run_of_its_initial_weights(
    finished_copy, train_tiny, launch_here, tmp_path
):
    second = tmp_path / "second"
    train_tiny(second, f"train.init_from={finished_copy}", "train.stop_after=2")
    shutil.rmtree(finished_copy)
    done = launch_here("--mode=eval", f"--workdir={second}")
    assert done.returncode == 0, done.stderr
    assert train_tiny(second, f"train.init_from={finished_copy}").step == 6


def test_the_weights_are_read_once_though_the_source_is_trained_further(
    train_tiny, opened, tmp_path, monkeypatch  # noqa: F811
):
    source = tmp_path / "source"
    train_tiny(source, "train.stop_after=2")
    start, load = params_of(opened(source / "checkpoints")), runs.load_weights

    def load_and_train_further(path):
        weights = load(path)
        monkeypatch.setattr(runs, "load_weights", load)
        train_tiny(source)
        return weights

    monkeypatch.setattr(runs, "load_weights", load_and_train_further)
    train_tiny(tmp_path / "next", f"train.init_from={source}", "seed=1", "train.steps=1",
               "optimizer.learning_rate=1e-9")
    taken = params_of(opened(tmp_path / "next" / "checkpoints"))
    np.testing.assert_allclose(
        taken["Dense_0"]["kernel"], start["Dense_0"]["kernel"], atol=1e-6)


def test_the_weights_are_read_once_for_all_seeds_that_have_started(
    finished, train_tiny, tiny_config, tiny_data, tmp_path, monkeypatch
):
    configs = {}
    for seed in (0, 1, 2):
        setting = f"train.init_from={finished}", f"seed={seed}"
        train_tiny(tmp_path / str(seed), *setting, "train.stop_after=2")
        configs[tmp_path / str(seed)] = apply_overrides(tiny_config, setting)
    paths, load = [], runs.load_weights
    monkeypatch.setattr(runs, "load_weights", lambda path: paths.append(path) or load(path))
    runs.check_folders(configs, tiny_data)
    assert paths == [str(finished)]


def test_a_new_head_where_the_class_counts_differ(
    finished, launch_here, opened, caplog, tmp_path  # noqa: F811
):
    images = np.random.default_rng(0).integers(0, 256, (80, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "four.npz", images=images, labels=np.arange(80) % 4)
    recipe = ("--experiment=dense_cnn", "--set=data.dataset=npz", "--set=data.split=holdout",
              f"--set=data.folder={tmp_path / 'four.npz'}", "--set=model.filters=2",
              "--set=model.dense=8", "--set=train.steps=1", "--notensorboard",
              f"--set=train.init_from={finished}", "--set=train.freeze=Conv_0,Dense_0")
    folders = [tmp_path / "seeds" / "seeds" / str(seed) for seed in (0, 1)]
    done = launch_here(*recipe, "--seeds=0,1", f"--workdir={tmp_path / 'seeds'}")
    assert done.returncode == 0, done.stderr
    assert [record.message for record in caplog.records if "initialized" in record.message] == [
        f"train.init_from: Dense_1 is newly initialized: this run has 4 classes, {finished} has "
        "10"]
    source, *states = (params_of(opened(run / "checkpoints")) for run in (finished, *folders))
    for state in states:
        np.testing.assert_array_equal(state["Dense_0"]["kernel"], source["Dense_0"]["kernel"])
        assert state["Dense_1"]["kernel"].shape == (8, 4)
    heads = [state["Dense_1"]["kernel"] for state in states]
    assert np.abs(heads[0] - heads[1]).max() > 0.1, "every seed has its own head"
    done = launch_here(*recipe, "--set=model.dense=9", f"--workdir={tmp_path / 'other'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.endswith("; layers that differ: Dense_0, Dense_1\n")
