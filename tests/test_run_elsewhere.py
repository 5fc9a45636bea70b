"""Runs without their data, and runs that are resumed after the data or the folder have moved."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_run_folder import refusal
from test_run_folder_refused import without_root

import flaxdigits
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.checkpoints import evaluate_checkpoints
from flaxdigits.evaluation.trained import load_network
from flaxdigits.studies.records import read_record
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of 16 images of two classes, strokes that lie and strokes that stand."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("flat", "steep"):
        (folder / name).mkdir()
        for number in range(8):
            image = np.zeros((16, 16), np.uint8)
            image[4:12, 6 + number % 3:8 + number % 3] = 200 + number
            Image.fromarray(image if name == "steep" else image.T).save(
                folder / name / f"{number}.png")
    return folder


def flags(workdir: Path, data: Path, *more: str) -> list[str]:
    return ["--experiment=dense_cnn", f"--workdir={workdir}", "--set=data.dataset=image_folder",
            f"--set=data.folder={data}", "--set=data.split=random", "--set=model.filters=2",
            "--set=model.dense=4", "--set=train.steps=3", "--set=train.batch_size=4",
            "--set=checkpoint.every_steps=1", *more]


def trained(launch_here, *arguments) -> str:
    done = launch_here(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def paused(launch_here, workdir: Path, data: Path) -> None:
    assert "saved at step 2" in trained(
        launch_here, *flags(workdir, data, "--set=train.stop_after=2"))


def test_a_network_is_used_without_its_data(pictures, launch_here, tmp_path):
    data, run = Path(shutil.copytree(pictures, tmp_path / "data")), tmp_path / "run"
    trained(launch_here, *flags(run, data))
    recorded = json.loads((run / "config.json").read_text())["data"]
    assert recorded["class_names"] == ["flat", "steep"] and recorded["official_train"] is None
    assert recorded["framing"]["height"] == recorded["framing"]["width"] == 16
    before = load_network(RunFolder(run))
    shutil.rmtree(data)
    image = pictures / "steep" / "0.png"
    read = json.loads(trained(launch_here, "--mode=predict", f"--workdir={run}",
                              f"--images={image}", "--format=json"))
    assert {guess["class_name"] for guess in read[0]["guesses"]} == {"flat", "steep"}
    trained(launch_here, "--mode=export", f"--workdir={run}")
    with np.load(run / "export" / "program.npz") as file:
        assert file["class_names"].tolist() == ["flat", "steep"]
    after = load_network(str(run))
    assert (before.framing, before.class_names) == (after.framing, after.class_names)


def test_a_run_of_an_older_version_has_its_classes_from_the_data(pictures, launch_here, tmp_path):
    data, run = Path(shutil.copytree(pictures, tmp_path / "data")), tmp_path / "run"
    trained(launch_here, *flags(run, data))
    network = load_network(run)
    path = run / "config.json"
    recorded = json.loads(path.read_text())
    for name in ("class_names", "official_train", "framing"):
        del recorded["data"][name]
    path.write_text(json.dumps(recorded))
    older = load_network(run)
    assert (older.framing, older.class_names) == (network.framing, network.class_names)
    (data / "flat" / "0.png").unlink()
    assert "restore the original data" in refusal(load_network, run)


@pytest.mark.parametrize("where", ["dots", "link", "copy"])
def test_the_data_decide_and_not_their_place(where, pictures, launch_here, tmp_path):
    data, run, other = tmp_path / "data", tmp_path / "run", tmp_path / "other"
    shutil.copytree(pictures, data)
    paused(launch_here, run, data)
    if where == "dots":
        other = tmp_path / "run" / ".." / "data"
    elif where == "link":
        other.symlink_to(data)
    else:
        data.rename(other)
    assert "complete at step 3" in trained(launch_here, *flags(run, other))
    assert "complete at step 3" in trained(launch_here, *flags(run, other))
    assert json.loads((run / "config.json").read_text())["config"]["data"]["folder"] == str(other)
    assert "step 3" in trained(launch_here, "--mode=eval", f"--workdir={run}")


def test_other_data_in_the_same_place_are_another_run(pictures, launch_here, tmp_path):
    data, run = Path(shutil.copytree(pictures, tmp_path / "data")), tmp_path / "run"
    paused(launch_here, run, data)
    (data / "flat").rename(data / "level")  # the same images and labels
    done = launch_here(*flags(run, data))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert ("data.class_names was ['flat', 'steep'] and is ['level', 'steep']"
            in done.stderr)
    done = launch_here("--mode=eval", f"--workdir={run}")
    assert done.returncode == 2 and "pass the data of the run with data.folder=" in (
        done.stderr)


def test_a_copied_run_is_resumed_and_evaluated_elsewhere(pictures, launch_here, tmp_path):
    data, run = Path(shutil.copytree(pictures, tmp_path / "data")), tmp_path / "run"
    paused(launch_here, run, data)
    copied = shutil.copytree(run, tmp_path / "there" / "run")
    shutil.rmtree(data)
    shutil.rmtree(run)
    scores = trained(launch_here, "--mode=eval", f"--workdir={copied}",
                     f"--set=data.folder={pictures}")
    assert scores.startswith("step 2")
    done = launch_here("--mode=eval", f"--workdir={copied}", "--set=seed=1")
    assert done.returncode == 2 and "leave out --set seed" in done.stderr
    trained(launch_here, f"--workdir={copied}", f"--set=data.folder={pictures}")
    trained(launch_here, "--mode=report", f"--workdir={copied}")


def test_weights_that_are_taken_may_lie_elsewhere(finished_copy, train_tiny, tmp_path):
    run, moved = tmp_path / "second", tmp_path / "moved"
    train_tiny(run, f"train.init_from={finished_copy}", "train.stop_after=2")
    assert len(json.loads((run / "config.json").read_text())["init_from"]) == 64
    train_tiny(tmp_path / "other", "seed=8")
    message = refusal(train_tiny, run, f"train.init_from={tmp_path / 'other'}")
    assert "train.init_from was" in message  # other weights
    assert "train.init_from was" in refusal(train_tiny, run)
    finished_copy.rename(moved)
    assert train_tiny(run, f"train.init_from={moved}", "train.stop_after=4").step == 4
    shutil.rmtree(moved)
    assert train_tiny(run, f"train.init_from={tmp_path / 'gone'}").step == 6


def test_weights_that_are_not_taken_yet_are_needed(finished_copy, train_tiny, tmp_path):
    run = tmp_path / "second"
    train_tiny(run, f"train.init_from={finished_copy}", "train.stop_after=2")
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(finished_copy)
    assert "not a run folder" in refusal(train_tiny, run, f"train.init_from={finished_copy}")


def test_scores_that_cannot_be_saved_are_returned(finished, tiny_config, tiny_data, caplog):
    outer = Path(tempfile.mkdtemp())
    try:
        run = Path(shutil.copytree(finished, outer / "run"))
        outer.chmod(0o755)
        for path in (run, *run.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with without_root():
            rows = list(evaluate_checkpoints(tiny_config, tiny_data, str(run), "all"))
        assert [row["step"] for row in rows] == [2, 4, 6]
        assert caplog.text.count("the metrics are not saved") == 1
        assert not (run / "eval.jsonl").exists()
    finally:
        for path in outer.rglob("*"):
            path.chmod(0o755)
        shutil.rmtree(outer)


def test_another_length_of_an_unfinished_run_is_refused(train_tiny, tmp_path):
    train_tiny(tmp_path, "train.stop_after=2")
    assert refusal(train_tiny, tmp_path, "train.steps=20") == (
        f"{tmp_path}: the run is unfinished at step 2 of 6, and train.steps=20 gives 20 steps: "
        "resume it with train.steps=6 (a finished run can be extended), or choose another workdir")
    assert "and train.epochs=2 and train.steps=none gives 8 steps: resume it with train.epochs=1 " \
        "and train.steps=6 (" in refusal(train_tiny, tmp_path, "train.epochs=2", "train.steps=none")
    assert "contains another run: seed was 0 and is 4" in refusal(
        train_tiny, tmp_path, "train.steps=20", "seed=4")
    assert train_tiny(tmp_path).step == 6


def test_a_run_folder_can_be_passed_as_a_string(finished, tiny_config, tiny_data):
    text, folder = str(finished), RunFolder(str(finished))
    assert folder.path == finished and os.fspath(folder) == text
    assert load_network(text).step == load_network(folder).step == 6
    assert flaxdigits.compare(folder).runs[0].result() == folder.result()
    assert flaxdigits.recorded_experiment(folder) == flaxdigits.recorded_experiment(text)
    with pytest.raises(FlaxdigitsError, match="there is no such file"):
        read_record(f"{text}/none.json")
    for wrong in (3, None, ["a"]):
        assert refusal(RunFolder, wrong) == f"a run folder must be given as a path, got {wrong!r}"
        assert "must be given as a path" in refusal(load_network, wrong)
        assert "must be given as a path" in refusal(
            lambda wrong=wrong: next(evaluate_checkpoints(tiny_config, tiny_data, wrong, "last")))
