"""Signals that come between steps, while a run is reported on, and between runs."""

import json
import signal

import pytest

from flaxdigits.overrides import apply_overrides
from flaxdigits.studies.ablation import Pause, run_study
from flaxdigits.training.interrupts import Interrupts

pytest_plugins = ["tiny_run"]

PAUSED = "paused by SIGTERM; the same command resumes it"
# A run of it is sent SIGTERM when all of it is done but the loop's own last steps.
LATE = '''"""A network, and a signal that comes late."""
import signal
from flaxdigits.config import *
from flaxdigits.experiments import load_experiment
from flaxdigits.overrides import apply_overrides
from flaxdigits.studies.replication import Claim, Replication
from flaxdigits.training.trackers import Tracker
from flaxdigits.optimizers import SGD

class Late(Tracker):
    def finish(self, result, figures):
        signal.raise_signal(signal.SIGTERM)

def get_trackers():
    return [Late()]
'''
DIGITS = '''
def get_config():
    return ExperimentConfig(
        "late", ModelConfig("dense_cnn", filters=(2,), dense=(8,)),
        DataConfig(dataset="idx_files", folder="{folder}", split="random"),
        SGD(learning_rate=0.1), TrainConfig(batch_size=50, steps=2))

def get_replication():
    return Replication("A paper", held_out=("data.split=holdout",), claims=(
        Claim("validation_accuracy", 0.9, why="It was."),))
'''
NUMERALS = '''
def get_config():
    return apply_overrides(load_experiment("chinese_cnn"), [
        "train.steps=2", "data.limit=64", "model.filters=1,1,1", "model.dense=4"])
'''


@pytest.fixture
def late(idx_folder, tmp_path):
    path = tmp_path / "late.py"
    path.write_text(LATE + DIGITS.format(folder=idx_folder))
    return f"--experiment={path}"


def finished(workdir):
    return sorted(str(path.parent.relative_to(workdir)) for path in workdir.rglob("result.json"))


@pytest.fixture
def python_s_handlers():
    """In the background of a shell, SIGINT is ignored from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_one_within_another_notes_the_same(python_s_handlers):
    with Interrupts() as outer:
        with Interrupts() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert outer.received == inner.received == signal.SIGTERM
        with Interrupts() as later:
            assert later.received == signal.SIGTERM
            with pytest.raises(KeyboardInterrupt):  # a second one is obeyed
                signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_that_ended_all_the_same_is_complete(late, launch_here, tmp_path):
    done = launch_here(late, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0 and "complete at step 2" in done.stdout, done.stdout


def test_seeds_stop_after_the_one_that_ended(late, launch_here, tmp_path):
    arguments = late, "--seeds=0..2", f"--workdir={tmp_path / 'run'}"
    for ended in (1, 2):
        done = launch_here(*arguments)
        assert done.returncode == 128 + signal.SIGTERM and PAUSED in done.stdout, done.stdout
        assert len(finished(tmp_path / "run")) == ended
    done = launch_here(*arguments)
    assert done.returncode == 0 and "complete" in done.stdout, done.stdout


def test_a_replication_stops_after_the_protocol_that_ended(late, launch_here, tmp_path):
    arguments = ("--mode=replicate", late, "--seeds=0", f"--workdir={tmp_path / 'run'}",
                 f"--collect={tmp_path}")
    done = launch_here(*arguments)
    assert done.returncode == 128 + signal.SIGTERM and PAUSED in done.stdout, done.stdout
    assert finished(tmp_path / "run") == ["late/original/seeds/0"]
    done = launch_here(*arguments)
    assert done.returncode == 0 and "paused" not in done.stdout, done.stdout
    assert len(finished(tmp_path / "run")) == 2


def test_folds_stop_after_the_one_that_ended(launch_here, environment, tmp_path):
    path, workdir = tmp_path / "late.py", tmp_path / "run"
    path.write_text(LATE + NUMERALS)
    arguments = ("--mode=folds", f"--experiment={path}", f"--workdir={workdir}", "--data=synthetic",
                 f"--data_dir={environment['TFDS_DATA_DIR']}")
    done = launch_here(*arguments)
    assert done.returncode == 128 + signal.SIGTERM and PAUSED in done.stdout, done.stdout
    assert finished(workdir) == ["folds/0/seeds/0"]
    done = launch_here(*arguments, "--set=train.stop_after=1")
    assert done.returncode == 0 and "paused by train.stop_after" in done.stdout, done.stdout
    assert "fold 9, seed 0: saved at step 1 of 2" in done.stdout
    assert finished(workdir) == ["folds/0/seeds/0"] and not (workdir / "writers.md").exists()


@pytest.fixture
def variants(tiny_config):
    return {"base": tiny_config, "fast": apply_overrides(
        tiny_config, ["optimizer.learning_rate=0.2"])}


@pytest.mark.quick
def test_a_study_stops_after_the_variant_that_ended(
    compiled_once, variants, tiny_data, tmp_path
):
    def signalled(variant, seed, outcome):
        if (variant, seed) == ("base", 1):
            signal.raise_signal(signal.SIGTERM)

    def study(on_end):
        return run_study(variants, (0, 1), tmp_path, lambda config: tiny_data, on_end)

    assert study(signalled) == Pause(signal.SIGTERM)
    assert finished(tmp_path) == ["base/seeds/0", "base/seeds/1"]
    assert json.loads((tmp_path / "base" / "summary.json").read_text())["finished"] == [0, 1]
    assert study(lambda *found: None) is None
    assert len(finished(tmp_path)) == 4


@pytest.mark.slow
def test_a_paused_study_is_resumed(launch_here, idx_folder, tmp_path):
    path, workdir = tmp_path / "rates.py", tmp_path / "run"
    path.write_text(
        "from flaxdigits.studies.study import Study\n\n"
        "def get_study():\n"
        "    return Study('mse_cnn', seeds=(0, 1), overrides=(\n"
        f"        'data.dataset=idx_files', 'data.folder={idx_folder}', 'data.split=holdout',\n"
        "        'model.filters=4,4', 'train.steps=4'),\n"
        "        variants={'fast': ('optimizer.learning_rate=0.1',)})\n")
    arguments = f"--ablation={path}", f"--workdir={workdir}"
    done = launch_here(*arguments, "--set=train.stop_after=2")
    assert done.returncode == 0 and "paused by train.stop_after" in done.stdout, done.stdout
    assert "base, seed 1: saved at step 2 of 4" in done.stdout and finished(workdir) == []
    done = launch_here(*arguments)
    assert done.returncode == 0 and len(finished(workdir)) == 4, done.stderr
    assert (workdir / "study.md").exists()
