"""A finished run that is given more steps."""

import json
import shutil

import pytest
from test_checkpoints import refusal
from test_training_resume import assert_bitwise_equal

from flaxdigits.overrides import apply_overrides
from flaxdigits.studies.seeds import train_seeds
from flaxdigits.training import run_files
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]

EPOCHS = "train.steps=none", "evaluate.every_steps=4"


@pytest.fixture(scope="module")
def one_epoch(train_tiny, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("extension") / "one"
    train_tiny(workdir, *EPOCHS)
    return workdir


@pytest.fixture(scope="module")
def three_epochs(train_tiny, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("extension") / "three"
    train_tiny(workdir, *EPOCHS, "train.epochs=3")
    return workdir


def recorded(workdir):
    return json.loads((workdir / "config.json").read_text())


def test_an_extended_run_is_bitwise_identical_to_the_long_run(
    one_epoch, three_epochs, train_tiny, launch_here, tmp_path
):
    run = shutil.copytree(one_epoch, tmp_path / "run")
    result = (run / "result.json").read_bytes()
    train_tiny(run, *EPOCHS, "train.epochs=3", "train.stop_after=6")
    assert RunFolder(run).result() is None
    assert (run / "result.json").read_bytes() == (run / "result.4.json").read_bytes() == result
    assert "has no result.json yet" in launch_here("--mode=report", f"--workdir={run}").stderr
    outcome = train_tiny(run, *EPOCHS, "train.epochs=3")
    assert outcome.result["steps"] == RunFolder(run).result()["steps"] == 12
    assert_bitwise_equal(run, three_epochs)
    about, whole = recorded(run), recorded(three_epochs)
    assert about["config"] == whole["config"]
    assert (about["first_length"], about["extended_at"]) == ({"epochs": 1, "steps": None}, [4])
    done = launch_here("--mode=eval", f"--workdir={run}", "--checkpoint=all")
    assert done.returncode == 0, done.stderr
    assert train_tiny(run, *EPOCHS, "train.epochs=3").result == outcome.result


def test_the_result_of_a_finished_run_is_read_once(one_epoch, train_tiny, monkeypatch):
    read, paths = run_files.read_result, []

    def read_and_count(path):
        paths.append(path)
        return read(path)

    monkeypatch.setattr(run_files, "read_result", read_and_count)
    assert train_tiny(one_epoch, *EPOCHS).result == read(one_epoch / "result.json")
    assert paths == [one_epoch / "result.json"]


def test_a_run_is_extended_twice_and_by_its_steps(one_epoch, three_epochs, train_tiny, tmp_path):
    run = shutil.copytree(one_epoch, tmp_path / "run")
    train_tiny(run, "train.steps=8", "evaluate.every_steps=4")
    train_tiny(run, "train.steps=12", "evaluate.every_steps=4")
    assert_bitwise_equal(run, three_epochs)
    about = recorded(run)
    assert (about["first_length"], about["extended_at"]) == ({"epochs": 1, "steps": None}, [4, 8])


@pytest.mark.parametrize("changes, message", [
    (["train.steps=3"], "is complete with 4 steps, and train.steps=3 makes 3: set more to extend"),
    (["train.steps=4"], "is complete with 4 steps, and train.steps=4 makes 4"),
    (["train.epochs=2", "seed=1"], "contains another run: seed was 0 and is 1; choose another"),
])
def test_a_run_is_not_shortened_or_changed(changes, message, one_epoch, train_tiny):
    before = {path: path.stat().st_mtime_ns for path in one_epoch.rglob("*")}
    assert message in refusal(train_tiny, one_epoch, *EPOCHS, *changes)
    assert {path: path.stat().st_mtime_ns for path in one_epoch.rglob("*")} == before


@pytest.mark.parametrize("schedule, can_extend", [
    ("exponential", True), ("constant optimizer.schedule.warmup_steps=2", True),
    ("cosine", False), ("piecewise", False)])
def test_the_rates_of_the_steps_that_are_done_decide(
    schedule, can_extend, train_tiny, tmp_path
):
    recipe = [*EPOCHS, *f"optimizer.schedule={schedule}".split()]
    train_tiny(tmp_path / "run", *recipe)
    if can_extend:
        assert train_tiny(tmp_path / "run", *recipe, "train.epochs=2").step == 8
        return
    message = refusal(train_tiny, tmp_path / "run", *recipe, "train.epochs=2")
    assert f"the learning rates of optimizer.schedule={schedule} depend on the length" in message
    assert message.endswith(f"--set train.init_from={tmp_path / 'run'}")


def test_several_seeds_are_extended(tiny_config, tiny_data, train_tiny, three_epochs, tmp_path):
    short, long = (apply_overrides(tiny_config, [*EPOCHS, f"train.epochs={epochs}"])
                   for epochs in (1, 3))
    train_seeds(short, (0, 1), tiny_data, tmp_path)
    (tmp_path / "seeds" / "1" / "result.json").unlink()  # as if it was killed before its end
    assert "contains another run: train.epochs was 1 and is 3; " in refusal(
        train_seeds, long, (0, 1), tiny_data, tmp_path)
    train_seeds(short, (0, 1), tiny_data, tmp_path)
    summary = train_seeds(long, (0, 1, 2), tiny_data, tmp_path)
    assert summary["metrics"]["steps"]["mean"] == 12 and summary["finished"] == [0, 1, 2]
    assert_bitwise_equal(tmp_path / "seeds" / "0", three_epochs)


def test_a_run_stopped_at_any_write_of_its_extension_is_resumed(
    one_epoch, three_epochs, train_tiny, monkeypatch, tmp_path
):
    run, longer = shutil.copytree(one_epoch, tmp_path / "run"), [*EPOCHS, "train.epochs=3"]
    result, write = (run / "result.json").read_bytes(), RunFolder.write
    for last in ("result.4.json", "config.json", "metrics.jsonl", "predictions.npz"):
        def write_or_end(folder, name, content, last=last):
            if name == last:
                raise KeyboardInterrupt
            write(folder, name, content)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(RunFolder, "write", write_or_end)
            train_tiny(run, *longer)
        assert (run / "result.json").read_bytes() == result
    train_tiny(run, *longer)
    assert (run / "result.4.json").read_bytes() == result
    assert_bitwise_equal(run, three_epochs)
