"""A run that is killed, stopped or paused ends like an uninterrupted one."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flaxdigits.training.checkpoints import Checkpoints, flat_arrays

pytest_plugins = ["tiny_run"]

STEPS = 60
CLOCKS = ("seconds_compiling", "seconds_training", "seconds_evaluating", "steps_per_second")


@pytest.fixture(scope="module")
def recipe(idx_folder):
    return [
        "--experiment=mnist_cnn", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", "--set=data.split=holdout", f"--set=train.steps={STEPS}",
        "--set=train.batch_size=16", "--set=checkpoint.every_steps=10", "--set=train.log_every=5",
        "--set=train.ema_decay=0.99", "--set=data.augmentation.zoom=0.1",
        "--set=model.filters=2,2,4,4"]


@pytest.fixture(scope="module")
def uninterrupted(recipe, launch, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    done = launch(*recipe, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def saved_arrays(workdir):
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        return flat_arrays(checkpoints.restore_arrays(checkpoints.last()))
    finally:
        checkpoints.close()


def without_clocks(values):
    return {name: value for name, value in values.items() if name not in CLOCKS}


def assert_bitwise_equal(workdir, expected_workdir):
    def read(folder):
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        return (without_clocks(json.loads((folder / "result.json").read_text())),
                [without_clocks(json.loads(row)) for row in rows])

    assert read(workdir) == read(expected_workdir)
    arrays, expected = saved_arrays(workdir), saved_arrays(expected_workdir)
    assert arrays.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.005)


def rows_of(workdir):
    metrics = workdir / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


@pytest.mark.quick
def test_paused_and_resumed_in_one_process_is_bitwise_equal(finished, train_tiny, tmp_path):
    assert train_tiny(tmp_path, "train.stop_after=3").step == 3
    train_tiny(tmp_path)
    assert_bitwise_equal(tmp_path, finished)


@pytest.mark.parametrize("kill_after_rows", [
    (3, 10), pytest.param((1, 5, 8, 12), marks=pytest.mark.slow)])
def test_a_run_that_is_killed_and_resumed_is_bitwise_equal(
    kill_after_rows, recipe, start, launch, tmp_path, uninterrupted
):
    for rows in kill_after_rows:
        process = start(*recipe, f"--workdir={tmp_path}")
        wait_for(lambda rows=rows: rows_of(tmp_path) >= rows, process)
        process.kill()
        process.communicate()
    done = launch(*recipe, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert_bitwise_equal(tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_second_process_in_the_same_folder_is_refused(
    recipe, start, launch, tmp_path, uninterrupted
):
    process = start(*recipe, f"--workdir={tmp_path}")
    wait_for(lambda: rows_of(tmp_path) >= 2, process)
    process.send_signal(signal.SIGSTOP)
    second = launch(*recipe, f"--workdir={tmp_path}")
    process.send_signal(signal.SIGCONT)
    assert second.returncode == 2 and second.stderr.count("\n") == 1
    assert f"{tmp_path}: another process is training in this folder" in second.stderr
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert_bitwise_equal(tmp_path, uninterrupted)


def test_a_run_killed_while_its_report_is_written_is_resumed(
    recipe, start, launch, tmp_path, uninterrupted
):
    process = start(*recipe, f"--workdir={tmp_path}")
    wait_for((tmp_path / "predictions.npz").exists, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "report.html").exists(), "killed too late for this test"
    assert not (tmp_path / "result.json").exists()
    done = launch(*recipe, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert_bitwise_equal(tmp_path, uninterrupted)
    for name in ("predictions.npz", "report.html", "figures"):
        assert (tmp_path / name).exists()


@pytest.mark.parametrize("number", [
    signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_signals_save_the_run_and_print_how_to_resume(
    number, recipe, start, launch, tmp_path, uninterrupted
):
    process = start(*recipe, f"--workdir={tmp_path}")
    wait_for(lambda: rows_of(tmp_path) >= 2, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert f"paused by {number.name}" in output and "resumes it" in output
    assert "Traceback" not in output
    assert not (tmp_path / "result.json").exists()
    step = max(int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*"))
    done = launch(*recipe, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert f"note: {tmp_path}: resuming at step {step} of {STEPS} (epoch " in done.stderr
    assert_bitwise_equal(tmp_path, uninterrupted)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at what is loaded in /proc")
def test_ctrl_c_while_jax_is_imported_ends_the_process(recipe, start, tmp_path):
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
    process = start(*recipe, f"--workdir={tmp_path}")
    signal.signal(signal.SIGINT, usual)
    wait_for(lambda: "jaxlib" in Path(f"/proc/{process.pid}/maps").read_text(), process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == (
        "interrupted; saved checkpoints are kept, and the same command resumes the run\n")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_pausing_does_not_change_the_schedule(recipe, launch, tmp_path, uninterrupted):
    paused = launch(*recipe, f"--workdir={tmp_path}", "--set=train.stop_after=33")
    assert paused.returncode == 0, paused.stderr
    assert f"saved at step 33 of {STEPS}" in paused.stdout
    done = launch(f"--workdir={tmp_path}")  # the recorded config, but for the pause
    assert done.returncode == 0, done.stderr
    assert_bitwise_equal(tmp_path, uninterrupted)
    again = launch(*recipe, f"--workdir={tmp_path}")
    assert again.returncode == 0
    assert f"complete at step {STEPS}" in again.stdout


def test_other_settings_in_the_same_folder_are_refused(recipe, launch, uninterrupted):
    before = (uninterrupted / "result.json").read_bytes()
    done = launch(*recipe, f"--workdir={uninterrupted}", "--set=optimizer.learning_rate=0.5")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "optimizer.learning_rate was 1.0 and is 0.5" in done.stderr
    assert (uninterrupted / "result.json").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_the_run(recipe, launch, tmp_path):
    fatal = [*recipe, "--set=optimizer.name=sgd", "--set=optimizer.learning_rate=1e20",
             f"--set=optimizer.warmup_steps={STEPS - 1}", f"--workdir={tmp_path}"]
    sane = launch(*fatal, "--set=train.stop_after=1")
    assert sane.returncode == 0, sane.stderr
    done = launch(*fatal)
    assert done.returncode == 2
    note, error = done.stderr.splitlines()
    assert note.endswith("resuming at step 1 of 60 (epoch 1)")
    assert "not finite at step" in error and "the checkpoint of step 1 stays" in error
    for name, array in saved_arrays(tmp_path).items():
        assert np.isfinite(array).all(), name
