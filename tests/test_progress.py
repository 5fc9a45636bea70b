"""What a command shows while it generates, compiles, evaluates and writes."""

import contextlib
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from flaxdigits.data.drawn import draw_chinese_mnist, draw_mnist
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.training import logits, progress
from flaxdigits.training.progress import ConsoleProgress, TrainingStage, console_progress
from flaxdigits.training.runs import train_many

pytest_plugins = ["tiny_run"]


class Output(io.StringIO):
    """A file of which a test waits until a text is written."""

    def __init__(self, text=""):
        super().__init__()
        self.text, self.written = text, threading.Event()

    def write(self, text):
        count = super().write(text)
        if self.text in self.getvalue():
            self.written.set()
        return count


class Recorder(Progress):
    """Records the stages, each with the last number of items and the total."""

    def __init__(self):
        self.stages = {}

    @contextlib.contextmanager
    def stage(self, text, total=None):
        self.stages[text] = (0, total)

        def advance(done):
            assert done >= self.stages[text][0]
            self.stages[text] = (done, total)

        yield advance


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_stage_shows_how_much_is_done(is_terminal, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_OF_SILENCE", 0.01)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.01)
    output = Output("evaluating train 3,200/12,000")
    shown = ConsoleProgress(Console(file=output, force_terminal=is_terminal))
    with shown.stage("evaluating", None), shown.stage("evaluating train", 12_000) as advance:
        advance(3_200)
        assert output.written.wait(60), output.getvalue()


def test_a_stage_without_items_shows_its_seconds(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_OF_SILENCE", 0.01)
    output = Output("compiling (0 s)\n")
    with ConsoleProgress(Console(file=output)).stage("compiling"):
        assert output.written.wait(60), output.getvalue()


def test_a_short_stage_prints_nothing(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_OF_SILENCE", 3600)
    output = Output()
    with pytest.raises(KeyError), ConsoleProgress(Console(file=output)).stage("compiling"):
        raise KeyError
    assert output.getvalue() == ""


def test_progress_is_off_by_the_environment_or_on_a_quiet_console(monkeypatch):
    assert console_progress(Console()) is NO_PROGRESS  # as conftest.py sets it
    monkeypatch.delenv("FLAXDIGITS_PROGRESS")
    assert isinstance(console_progress(Console()), ConsoleProgress)
    assert console_progress(Console(quiet=True)) is NO_PROGRESS


def test_a_run_reports_its_stages(tiny_config, tiny_data, tmp_path, compiled_once, monkeypatch):
    monkeypatch.setattr(logits, "BATCHES_PER_CALL", 2)
    recorder = Recorder()
    run = tmp_path / "run"
    outcome = train_many(
        {run: tiny_config}, tiny_data, lambda path: [TrainingStage(recorder, "seed 0")],
        write_report=write_report_or_warn, progress=recorder)[run]
    sizes = {split: outcome.result[f"{split}_examples"] for split in (
        "train", "validation", "test")}
    assert recorder.stages == {
        "building the network": (0, None), "initializing the train state": (0, None),
        "seed 0: step": (6, 6), "compiling the train step": (0, None),
        **{f"evaluating {split}": (size, size) for split, size in sizes.items()},
        "writing the report": (0, None)}


def test_logits_do_not_depend_on_the_calls(tiny_config, tiny_data, tmp_path, train_tiny,
                                           monkeypatch):
    found = []
    for batches in (1, 3, 10_000):
        monkeypatch.setattr(logits, "BATCHES_PER_CALL", batches)
        train_tiny(tmp_path / str(batches))
        with np.load(tmp_path / str(batches) / "predictions.npz") as file:
            found.append(file["test_logits"])
    assert found[0].shape == (70, 10)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize(("draw", "arguments", "count"), [
    (draw_mnist, (0, 200, 50), 250), (draw_chinese_mnist, (0, 2), 300)])
def test_generating_synthetic_data_counts_the_images(draw, arguments, count):
    recorder = Recorder()
    draw(*arguments, progress=recorder)
    assert recorder.stages == {"generating synthetic images": (count, count)}


def test_json_is_all_that_is_on_standard_output(
    finished, launch_here, tmp_path, monkeypatch
):
    monkeypatch.setenv("FLAXDIGITS_PROGRESS", "on")
    monkeypatch.setattr(progress, "SECONDS_OF_SILENCE", 0)
    picture = Image.new("L", (100, 100), 230)
    picture.paste(30, (20, 40, 80, 52))
    picture.save(tmp_path / "a.png")
    done = launch_here("--mode=predict", f"--workdir={finished}", f"--images={tmp_path}/a.png",
                       "--format=json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 1
    assert "loading the network (0 s)" in done.stderr
