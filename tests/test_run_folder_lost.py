"""Run folders that lack their config, are wanted by two processes, or vanish during training."""

import json
import shutil
import threading
import time

import pytest
from test_run_folder import ABOUT, CONFIG, files, refusal

from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.trackers import Tracker

pytest_plugins = ["tiny_run"]


@pytest.mark.parametrize("left", ["checkpoints", "metrics.jsonl", "result.json"])
def test_a_folder_without_its_config_is_refused(left, finished_copy, train_tiny):
    for path in finished_copy.iterdir():
        if path.name not in (left, ".lock"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = files(finished_copy)
    message = refusal(train_tiny, finished_copy, "seed=5", "optimizer.learning_rate=0.5")
    assert message == (
        f"{finished_copy}: contains {left} but no config.json, so the run cannot be "
        "identified; restore config.json, or choose another workdir")
    assert files(finished_copy) == before


def test_a_folder_of_a_diverged_run_without_its_config_is_refused(tmp_path):
    (tmp_path / "diverged.json").write_text(json.dumps({"step": 2, "message": "not finite"}))
    message = refusal(RunFolder(tmp_path).record_config, CONFIG, ABOUT)
    assert "contains diverged.json but no config.json" in message


def test_seeds_without_a_config_are_refused_before_any_is_trained(
    finished_copy, idx_folder, launch_here, tmp_path
):
    seeds = tmp_path / "many" / "seeds"
    shutil.copytree(finished_copy, seeds / "1")
    (seeds / "1" / "config.json").unlink()
    done = launch_here(
        "--experiment=mse_cnn", "--set=data.dataset=idx_files", "--seeds=0,1",
        f"--set=data.folder={idx_folder}", "--set=train.steps=2", f"--workdir={tmp_path / 'many'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{seeds / '1'}: contains checkpoints and metrics.jsonl and result.json" in done.stderr
    assert not (seeds / "0").exists()


def test_the_config_is_written_under_the_lock(train_tiny, tmp_path):
    """The first of two processes has the lock, and has written nothing yet."""
    with RunFolder(tmp_path).locked():
        message = refusal(train_tiny, tmp_path)
    assert message.startswith(f"{tmp_path}: another process is training in this folder")
    assert list(files(tmp_path)) == [".lock"]


def test_writers_of_one_file_do_not_mix(tmp_path):
    """Each writes under a name of its own: what is there is whole and of one of them."""
    folders = [RunFolder(tmp_path) for _ in range(4)]
    errors = []

    def write(folder: RunFolder, value: int) -> None:
        try:
            for _ in range(25):
                folder.write_json("summary.json", {"value": [value] * 2000})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(folder, value))
               for value, folder in enumerate(folders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(json.loads((tmp_path / "summary.json").read_text())["value"])) == 1
    assert list(files(tmp_path)) == ["summary.json"]


def test_what_a_killed_writer_left_is_cleared_under_the_lock(tmp_path):
    folder = RunFolder(tmp_path)
    folder.record_config(CONFIG, ABOUT)
    for name in (".result.json.0123abcd.part", ".config.json.ffff.part"):
        (tmp_path / name).write_text("{")
    (tmp_path / ".mine.part").write_text("of somebody else")
    with folder.locked():
        assert sorted(files(tmp_path)) == [".lock", ".mine.part", "config.json"]


class AtStep(Tracker):
    """Calls a function once a run has reached a step."""

    def __init__(self, step, function):
        self.step, self.function = step, function

    def advance(self, step, steps_per_second, loss, accuracy):
        if self.function is not None and step >= self.step:
            function, self.function = self.function, None
            function()


@pytest.fixture
def train_and(tiny_config, tiny_data, compiled_once):
    """Trains the tiny run, and does something with its folder on the way."""
    from tiny_run import train

    from flaxdigits.overrides import apply_overrides

    def run(workdir, function):
        config = apply_overrides(tiny_config, ["train.log_every=2"])
        return train(config, tiny_data, workdir, [AtStep(2, function)])

    return run


def delete(folder):
    time.sleep(0.2)  # a checkpoint is being saved
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_folder_that_is_deleted_stops_the_run(train_and, tmp_path):
    folder = tmp_path / "run"
    message = refusal(train_and, folder, lambda: delete(folder))
    assert message.startswith(f"{folder}: was deleted, moved or replaced during training")
    assert not folder.exists()


def test_a_moved_folder_stops_the_run_and_can_be_resumed_there(train_and, train_tiny, tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"
    message = refusal(train_and, folder, lambda: folder.rename(moved))
    assert message.startswith(f"{folder}: was deleted, moved or replaced")
    assert not folder.exists() and not (moved / "result.json").exists()
    assert train_and(moved, None).result["steps"] == 6
    steps = [row["step"] for row in RunFolder(moved).rows("metrics.jsonl")]
    assert steps == sorted(set(steps)) and steps[-1] == 6


def test_a_folder_that_is_replaced_is_left_as_it_is(train_and, tmp_path):
    folder = tmp_path / "run"

    def replace():
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        (folder / "note").write_text("another")

    assert "was deleted, moved or replaced" in refusal(train_and, folder, replace)
    assert files(folder) == {"note": b"another"}
    assert [path.name for path in folder.iterdir()] == ["note"]
