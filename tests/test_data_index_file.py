"""The `indices` split: a file of the user's own, what is wrong with it, and whose runs it is."""

import json
import shutil

import numpy as np
import pytest

from flaxdigits.data.index_file import read_index_file
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.identity import run_identity

pytest_plugins = ["tiny_run"]

SPLITS = {"train": [5, 0, 3, 8], "validation": [1, 2], "test": [9, 4]}
EXPERIMENT = ["--experiment=dense_cnn", "--set=model.filters=2", "--set=model.dense=4,4",
              "--set=train.steps=2"]


def error_message(path, count=10) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        read_index_file(path, count)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_json_and_npz_are_the_same_split(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(SPLITS))
    np.savez(tmp_path / "a.npz", **{name: np.array(rows) for name, rows in SPLITS.items()})
    files = [read_index_file(tmp_path / name, 10) for name in ("a.json", "a.npz")]
    for file in files:
        assert {name: rows.tolist() for name, rows in file.parts.items()} == SPLITS
        assert all(rows.dtype == np.int32 for rows in file.parts.values())
    assert files[0].digest == files[1].digest
    (tmp_path / "b.json").write_text(json.dumps(SPLITS | {"train": [0, 5, 3, 8]}))
    assert read_index_file(tmp_path / "b.json", 10).digest != files[0].digest


WRONG = {
    "no train": ({"validation": [1], "test": [2]}, "must have train, and validation or test"),
    "train alone": ({"train": [1]}, "must have train, and validation or test or both, has train"),
    "another part": ({"train": [1], "val": [2]}, "unknown part 'val'"),
    "floats": ({"train": [1.0], "test": [2]}, "train must be a list of integers"),
    "booleans": ({"train": [True], "test": [2]}, "train must be a list of integers"),
    "a number": ({"train": 1, "test": [2]}, "train must be a list of integers"),
    "empty": ({"train": [1], "test": []}, "test is empty; omit this part"),
    "negative": ({"train": [-1, 3], "test": [2]}, "train has the index -1; the data set has 10"),
    "beyond the end": ({"train": [1], "test": [10]}, "test has the index 10; the data set has 10"),
    "twice": ({"train": [1, 4, 1], "test": [2]}, "train has the index 1 more than once"),
    "in two parts": (
        {"train": [1, 4], "test": [2, 4]}, "the index 4 is in both train and test"),
    "a huge number": (
        {"train": [10**30], "test": [1]}, "an integer that does not fit into 64 bits"),
}


@pytest.mark.parametrize(("parts", "message"), WRONG.values(), ids=WRONG)
def test_wrong_json_is_refused(tmp_path, parts, message):
    (tmp_path / "a.json").write_text(json.dumps(parts))
    assert message in error_message(tmp_path / "a.json")


def test_wrong_files_are_refused(tmp_path):
    assert "there is no such file" in error_message(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    assert "expected a JSON object" in error_message(tmp_path / "list.json")
    (tmp_path / "text.json").write_text("train: 1")
    assert "cannot be read" in error_message(tmp_path / "text.json")
    np.savez(tmp_path / "a.npz", train=np.array([0.5]), test=np.array([1]))
    assert "train must be an array of integers" in error_message(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", train=np.array([1], object), test=np.array([1]))
    assert "Python objects" in error_message(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", train=np.array([2**40]), test=np.array([1]))
    assert "train has the index 1099511627776" in error_message(tmp_path / "c.npz")


@pytest.fixture
def indices(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(
        {"train": list(range(0, 100)), "validation": list(range(100, 150)),
         "test": list(range(200, 270))}))
    return path


def test_a_run_of_an_index_file_is_resumed_with_the_same_indices_alone(
    indices, idx_folder, launch_here, tmp_path
):
    data = ["--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}",
            "--set=data.split=indices"]
    command = [*EXPERIMENT, *data, f"--workdir={tmp_path / 'run'}"]
    completed = launch_here(*command, f"--set=data.indices={indices}", "--set=train.stop_after=1")
    assert completed.returncode == 0, completed.stderr

    other = tmp_path / "other.json"
    other.write_text(json.dumps({"train": list(range(1, 101)), "validation": [0]}))
    refused = launch_here(*command, f"--set=data.indices={other}")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "contains another run: data.indices was '" in refused.stderr

    moved = tmp_path / "moved.json"
    shutil.move(indices, moved)
    completed = launch_here(*command, f"--set=data.indices={moved}")
    assert completed.returncode == 0, completed.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert [result[f"{part}_examples"] for part in ("train", "validation", "test")] == [
        100, 50, 70]
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["config"]["data"]["indices"] == str(moved)
    assert config["config"]["data"]["folder"] == str(idx_folder)

    again = tmp_path / "again.json"
    shutil.move(moved, again)
    for mode in ("eval", "report"):
        asked = [f"--mode={mode}", f"--workdir={tmp_path / 'run'}"]
        lost = launch_here(*asked)
        assert lost.returncode == 2 and f"data.indices={moved}: there is no such" in lost.stderr
        completed = launch_here(*asked, f"--set=data.indices={again}")
        assert completed.returncode == 0, completed.stderr
    wrong = launch_here(
        "--mode=eval", f"--workdir={tmp_path / 'run'}", f"--set=data.indices={other}")
    assert wrong.returncode == 2 and "pass the data of the run with data.indices=" in (
        wrong.stderr)


@pytest.mark.parametrize(("settings", "message"), [
    (["data.split=indices"], "data.split=indices needs data.indices: a JSON or npz file"),
    (["data.indices=a.json"], "data.indices needs data.split=indices, got official"),
    (["data.split=indices", "data.indices={indices}", "data.stratify=true"],
     "data.stratify=true needs data.split=holdout, kaggle, random, fractions or kfold, got "
     "indices"),
    (["data.test_fraction=0.2"], "data.test_fraction=0.2 needs data.split=fractions, got official"),
    (["data.split=fractions", "data.validation_fraction=0.5", "data.test_fraction=0.5"],
     "data.validation_fraction + data.test_fraction must be below 1"),
    (["data.split=fractions", "data.validation_fraction=0", "checkpoint.select=best"],
     "checkpoint.select=best needs a validation split: set data.validation_fraction above 0"),
    (["data.folds=5"], "data.folds=5 needs data.split=writers or kfold, got official"),
    (["data.split=indices", "data.indices={without_validation}", "checkpoint.select=best"],
     "checkpoint.select=best needs a validation split, and"),
])
def test_fields_that_do_not_fit_are_refused_in_a_line(
    settings, message, indices, idx_folder, launch_here, tmp_path
):
    short = tmp_path / "short.json"
    short.write_text(json.dumps({"train": [0, 1, 2], "test": [3, 4]}))
    settings = [one.format(indices=indices, without_validation=short) for one in settings]
    completed = launch_here(
        *EXPERIMENT, "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}",
        *(f"--set={one}" for one in settings), f"--workdir={tmp_path / 'run'}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert message in completed.stderr and not (tmp_path / "run").exists()


def test_the_contents_of_an_index_file_are_part_of_a_runs_identity_and_its_path_is_not():
    config = {"experiment": "a", "seed": 3, "data": {
        "dataset": "idx_files", "folder": "/a", "fold": 0, "limit": None}}
    data = {"dataset": "idx_files", "source": "real", "fingerprint": "abc"}
    # What checkpoints of earlier versions, whose configs have fewer fields, are known by.
    assert run_identity({"config": config, "data": data}) == (
        "bbd995e67ea14e4c7c9c915590068c7e010884cb3bf0068d71a3990b5ba6ac18")

    def identity(path, digest):
        with_path = config | {"data": config["data"] | {"indices": path}}
        return run_identity({"config": with_path, "data": data | {"indices": digest}})

    assert identity("/a.json", "1") == identity("/b.json", "1") != identity("/a.json", "2")
