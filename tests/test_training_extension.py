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
    refused = launch_here("--mode=report", f"--workdir={run}").stderr
    assert "the run is being extended from 4 steps, at step 6, and only a" in refused
    assert refused.endswith("; result.4.json contains the earlier result\n")
    assert "run (being extended)" in launch_here("--mode=compare", f"--workdir={run}").stdout
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
    (["train.steps=3"],
     "has finished with 4 steps, but train.steps=3 gives 3 steps: set a larger value to extend it"),
    (["train.steps=4"], "has finished with 4 steps, but train.steps=4 gives 4"),
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
    assert message.endswith(f": train.init_from={tmp_path / 'run'}")


def test_the_length_of_an_extension_can_be_changed(
    one_epoch, three_epochs, train_tiny, launch_here, tmp_path
):
    run = shutil.copytree(one_epoch, tmp_path / "run")
    train_tiny(run, *EPOCHS, "train.epochs=30", "train.stop_after=6")
    for total in (4, 6):
        steps = f"train.steps={total}"
        message = refusal(train_tiny, run, *EPOCHS, steps)
        assert message.startswith(
            f"{run}: the run is being extended and is at step 6 of 120, but train.epochs=1 and "
            f"{steps} gives {total} steps: resume it with train.epochs=30 and train.steps=none, "
            "set more than 6 steps, or choose another workdir")
        assert message.endswith("; result.4.json contains the result of 4 steps") == (total == 4)
    assert train_tiny(run, *EPOCHS, "train.epochs=3").result["steps"] == 12
    assert_bitwise_equal(run, three_epochs)
    assert recorded(run)["extended_at"] == [4]
    assert refusal(train_tiny, run, *EPOCHS).endswith(
        "has finished with 12 steps, but train.epochs=1 gives 4 steps: set a larger value to "
        f"extend it, start another run from its weights with train.init_from={run}, or choose "
        "another workdir; result.4.json contains the result of 4 steps")


def test_an_extension_without_a_checkpoint_can_be_taken_back(
    one_epoch, three_epochs, train_tiny, tmp_path, monkeypatch
):
    run = shutil.copytree(one_epoch, tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "truncate_metrics", interrupt)  # before the first step
        train_tiny(run, *EPOCHS, "train.epochs=3")
    with open(run / "metrics.jsonl", "a") as file:  # as if a row was logged before the end
        file.write((three_epochs / "metrics.jsonl").read_text().splitlines()[-1] + "\n")
    assert RunFolder(run).result() is None and recorded(run)["config"]["train"]["epochs"] == 3
    outcome = train_tiny(run, *EPOCHS)
    assert outcome.step == outcome.total_steps == 4
    assert outcome.result == RunFolder(run).result() == RunFolder(one_epoch).result()
    assert (run / "metrics.jsonl").read_bytes() == (one_epoch / "metrics.jsonl").read_bytes()
    assert recorded(run)["config"] == recorded(one_epoch)["config"]
    train_tiny(run, *EPOCHS, "train.epochs=3")
    assert_bitwise_equal(run, three_epochs)


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_several_seeds_are_extended(
    tiny_config, tiny_data, train_tiny, three_epochs, tmp_path, caplog
):
    caplog.set_level("INFO", "flaxdigits")
    short, long = (apply_overrides(tiny_config, [*EPOCHS, f"train.epochs={epochs}"])
                   for epochs in (1, 3))
    train_seeds(short, (0, 1), tiny_data, tmp_path)
    (tmp_path / "seeds" / "1" / "result.json").unlink()  # as if it was killed before its end
    assert "the run is unfinished at step 4 of 4, and train.epochs=3 gives 12" in refusal(
        train_seeds, long, (0, 1), tiny_data, tmp_path)
    train_seeds(short, (0, 1), tiny_data, tmp_path)
    summary = train_seeds(long, (0, 1, 2), tiny_data, tmp_path)
    assert summary["metrics"]["steps"]["mean"] == 12 and summary["finished"] == [0, 1, 2]
    assert_bitwise_equal(tmp_path / "seeds" / "0", three_epochs)
    for seed in (0, 1):
        assert f"/seeds/{seed}: resuming at step 4 of 12 (epoch 1)" in caplog.text


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
