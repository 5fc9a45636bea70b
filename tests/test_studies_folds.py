"""All writer folds: every writer tested once, and the tables count what the networks said."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_training_resume import wait_for, without_clocks

from flaxdigits.cli.context import command_of
from flaxdigits.cli.options import Options
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.experiments import load_experiment
from flaxdigits.overrides import apply_overrides
from flaxdigits.studies.folds import fold_configs, read_fold_predictions

pytest_plugins = ["tiny_run"]

SETTINGS = ["train.steps=2", "data.limit=64", "model.filters=1,1,1", "model.dense=4"]
RECIPE = ["--mode=folds", "--experiment=chinese_cnn", *(f"--set={one}" for one in SETTINGS)]


@pytest.fixture(scope="module")
def synthetic(environment, tmp_path_factory):
    """Returns synthetic Chinese characters, prepared in the folder of the other tests."""
    config = apply_overrides(load_experiment("chinese_cnn"), SETTINGS)
    return config, load_dataset(config.data, DataLocations(
        None, environment["TFDS_DATA_DIR"], "drawn"))


@pytest.fixture(scope="module")
def ran(synthetic, launch, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("folds")
    completed = launch(*RECIPE, "--data=synthetic", f"--workdir={workdir}")
    assert completed.returncode == 0, completed.stderr
    return workdir, completed.stdout


@pytest.mark.slow
def test_every_writer_is_tested_once(ran, synthetic):
    workdir, output = ran
    config, dataset = synthetic
    tested = read_fold_predictions(fold_configs(config, [0], workdir), dataset)
    assert sorted(tested.index) == list(range(len(dataset.labels)))
    np.testing.assert_array_equal(tested.labels, dataset.labels[tested.index])
    np.testing.assert_array_equal(tested.groups, dataset.writers[tested.index])
    assert sorted(path.name for path in (workdir / "folds").iterdir()) == list("0123456789")
    assert all(f"fold {fold}, seed 0: accuracy" in output for fold in range(10))


@pytest.mark.slow
def test_the_tables_count_the_errors_of_the_runs(ran, synthetic):
    workdir, _ = ran
    results = [json.loads((workdir / "folds" / str(fold) / "seeds" / "0" / "result.json"
                           ).read_text()) for fold in range(10)]
    errors = sum(result["test_errors"] for result in results)
    rows = list(csv.DictReader((workdir / "writers.csv").read_text().splitlines()))
    totals = [row for row in rows if row["character"] == "all"]
    assert len(totals) == 100 and len(rows) == 100 * 16
    assert sum(int(row["errors"]) for row in totals) == errors
    assert sum(int(row["errors"]) for row in rows) == 2 * errors
    assert all(int(row["examples"]) == 150 for row in totals)
    counts = [int(row["errors"]) for row in totals]
    assert counts == sorted(counts, reverse=True)

    found = json.loads((workdir / "writers.json").read_text())
    accuracy = 1 - errors / len(synthetic[1].labels)
    assert found["accuracy"]["mean"] == pytest.approx(accuracy) and found["accuracy"]["n"] == 100
    assert np.mean(list(found["characters"].values())) == pytest.approx(accuracy)
    markdown = (workdir / "writers.md").read_text()
    assert f"{errors:,} errors in 15,000" in markdown and "(synthetic)" in markdown
    assert re.search(rf"\| {totals[0]['writer']} \| \d+\.\d\d \| {counts[0]} of 150 \|", markdown)
    for name in ("writers.png", "hardest_writers.png"):
        assert Image.open(workdir / name).size[0] > 1000


@pytest.mark.slow
def test_folds_that_are_killed_and_resumed_repeat_nothing(
    ran, start, launch, tmp_path, environment
):
    process = start(*RECIPE, "--data=synthetic", f"--workdir={tmp_path}")
    wait_for((tmp_path / "folds" / "2" / "seeds" / "0" / "checkpoints").exists, process)
    process.kill()
    process.communicate()
    first = tmp_path / "folds" / "0" / "seeds" / "0" / "result.json"
    config_file = first.with_name("config.json")
    recorded = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(recorded | {"machine": "A computer"}))
    before = first.stat().st_mtime_ns
    completed = launch(*RECIPE, "--data=synthetic", f"--workdir={tmp_path}")
    assert completed.returncode == 0, completed.stderr
    assert first.stat().st_mtime_ns == before
    assert "hardware: A computer, JAX" in (tmp_path / "writers.md").read_text()
    for fold in range(10):
        ours, theirs = (json.loads((folder / "folds" / str(fold) / "seeds" / "0" / "result.json"
                                    ).read_text()) for folder in (tmp_path, ran[0]))
        assert without_clocks(ours) == without_clocks(theirs)
    assert ((tmp_path / "writers.csv").read_bytes() == (ran[0] / "writers.csv").read_bytes())


def test_the_command_of_the_folds_of_a_run_contains_its_folder():
    run = Options(mode="folds", workdirs=(Path("my run"),), seeds="0..2")
    assert shlex.split(command_of(run, "--mode=folds")) == [
        "python", "launch.py", "--mode=folds", "--seeds=0..2", "--workdir=my run"]
    named = Options(mode="folds", workdirs=(Path("a"),), experiment="chinese_cnn")
    assert command_of(named, "--mode=folds").endswith("--mode=folds --experiment=chinese_cnn")
    installed = Options(program="/usr/bin/flaxdigits", mode="folds", experiment="chinese_cnn")
    assert command_of(installed, "--mode=folds").startswith("flaxdigits --mode=folds --exp")
    synthetic = Options(mode="folds", experiment="chinese_cnn", data="synthetic")
    assert command_of(synthetic, "--mode=folds").endswith(
        "--experiment=chinese_cnn --data=synthetic")


def test_data_without_writers_is_refused(launch_here):
    completed = launch_here("--mode=folds", "--experiment=mse_cnn")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert "mnist has no such split" in completed.stderr


@pytest.mark.slow
def test_folds_of_examples_whose_sizes_differ(launch, idx_folder, tmp_path):
    workdir = tmp_path / "folds"
    command = [
        "--mode=folds", "--experiment=dense_cnn", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", "--set=data.split=kfold", "--set=data.folds=4",
        "--set=train.steps=2", "--set=model.filters=1", "--set=model.dense=4,4",
        f"--workdir={workdir}"]
    completed = launch(*command)
    assert completed.returncode == 0, completed.stderr
    results = [json.loads((workdir / f"folds/{fold}/seeds/0/result.json").read_text())
               for fold in range(4)]
    assert sorted(result["test_examples"] for result in results) == [67, 67, 68, 68]
    assert len({result["train_examples"] for result in results}) > 1
    summary = json.loads((workdir / "folds.json").read_text())
    assert summary["folds"].keys() == set("0123")
    for fold, result in enumerate(results):
        assert summary["folds"][str(fold)] == pytest.approx(result["test_accuracy"])
    table = (workdir / "folds.md").read_text()
    assert "| fold | accuracy, % |" in table and "4 folds of examples" in table
    assert "writer" not in table and (workdir / "folds.png").exists()
    assert f"tables: {workdir / 'folds.md'}" in completed.stdout
    again = launch(*command)
    assert again.returncode == 0 and json.loads((workdir / "folds.json").read_text()) == summary


def test_folds_of_writers_need_writers(launch_here, idx_folder, tmp_path):
    completed = launch_here(
        "--mode=folds", "--experiment=dense_cnn", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", f"--workdir={tmp_path / 'folds'}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    message = "data.split=writers: idx_files has no such split; use one of official"
    assert message in completed.stderr
