"""The command line: what it refuses, in one line and before anything is done, and every mode."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flaxdigits.config import to_dict
from flaxdigits.experiments import ABLATIONS, list_experiments, load_experiment

pytest_plugins = ["tiny_run"]

LAUNCH = Path(__file__).resolve().parent.parent / "launch.py"
TRAIN = ("--experiment=mse_cnn",)
NO_DATA = (*TRAIN, "--raw_data_dir=no_data")

REFUSED = {
    "unknown flag": ([*TRAIN, "--epochs=3"], "epochs"),
    "unknown flag, no value": (["--verbos"], "verbos"),
    "negated flag with a value": ([*TRAIN, "--notensorboard=x"], "does not take an argument"),
    "negated list with a value": (["--nolist=x"], "does not take an argument"),
    "line break in a field": ([*TRAIN, "--set=a\nb=1"], r"unknown field a\nb"),
    "escape in a field": ([*TRAIN, "--set=a\x1b[1m=1"], r"unknown field a\x1b[1m"),
    "unreadable flag file": (["--flagfile=/proc/self/mem"], "Input/output error"),
    "stray word": ([*TRAIN, "train.epochs=3"], "unexpected argument 'train.epochs=3'"),
    "stray word after --": ([*TRAIN, "--", "--set"], "unexpected argument '--set'"),
    "flag without its value": (["--experiment"], "experiment"),
    "unknown mode": ([*TRAIN, "--mode=test"], "--mode must be one of train, eval"),
    "wrong --data": ([*TRAIN, "--data=fake"], "data"),
    "wrong number": ([*TRAIN, "--num_processes=two"], "num_processes"),
    "profile of no training": ([*TRAIN, "--mode=summary", "--profile"], "only for --mode=train"),
    "report of nothing": (["--mode=report"], "--mode=report needs one --workdir"),
    "report of no run": (["--mode=report", "--workdir=a"], "not a run folder"),
    "data of no folder": ([*TRAIN, "--mode=data", "--set=data.dataset=idx_files",
                           "--set=data.folder=none_there"], "none_there: no such folder"),
    "no experiment": ([], "--experiment is missing"),
    "unknown experiment": (["--experiment=mnist_cn"], "did you mean mnist_cnn"),
    "no such file": (["--experiment=mine.py"], "there is no file mine.py"),
    "unknown field": ([*TRAIN, "--set=train.epoch=3"], "did you mean train.epochs"),
    "wrong type": ([*TRAIN, "--set=train.epochs=x"], "train.epochs must be an integer"),
    "out of range": ([*TRAIN, "--set", "data.fold=11"], "data.fold must be at most 9, got 11"),
    "no choice": ([*TRAIN, "--set=optimizer.name=no_such"], "optimizer.name must be one of"),
    "help with a value": (["--help=zz"], "--help takes no value, got 'zz'"),
    "short help with a value": (["-h=2"], "-h takes no value, got '2'"),
    "no value": ([*TRAIN, "--set=train.epochs"], "an override must be name=value"),
    "a group": ([*TRAIN, "--set=train=3"], "train is a group of fields"),
    "not together": ([*TRAIN, "--set=checkpoint.select=best"], "needs a validation split"),
    "also to show": ([*TRAIN, "--mode=config", "--set=seed=-1"], "seed must be at least 0"),
    "also to list": (["--list", "--sets=1"], "sets"),
    "eval of nothing": (["--mode=eval"], "--mode=eval needs one --workdir"),
    "eval of two": (["--mode=eval", "--workdir=a", "--workdir=b"],
                    "--mode=eval takes only one --workdir, got 2"),
    "eval of no run": (["--mode=eval", "--workdir=a"], "not a run folder"),
    "compare of nothing": (["--mode=compare"], "compare needs the folders of runs"),
    "compare of no run": (["--mode=compare", "--workdir=a*"], "not a run folder"),
    "ablation in two": (["--ablation=mse_cnn", "--workdir=a", "--workdir=b"],
                        "--ablation takes only one --workdir, got 2"),
    "train in two": ([*TRAIN, "--workdir=a", "--workdir=b"],
                     "--mode=train takes only one --workdir, got 2"),
    "checkpoint of no eval": ([*TRAIN, "--checkpoint=best"], "--checkpoint is only for --mode="),
    "a seed of seeds": ([*TRAIN, "--seeds=0,1", "--set=seed=3"], "leave out --set seed="),
    "empty workdir": ([*TRAIN, "--workdir="], "--workdir is empty"),
    "no name": ([*TRAIN, "--set=experiment=../up"], "experiment must be a name"),
    "no number in a list": ([*TRAIN, "--set=model.filters=2,,2"], "a list of numbers like 32,64"),
    # errors that do not depend on the data are reported before the data are loaded
    "split of another": ([*NO_DATA, "--set=data.split=writers"], "data.split=writers"),
    "fold of no split": ([*NO_DATA, "--set=data.fold=3"], "data.fold=3"),
    "unknown network": ([*NO_DATA, "--set=model.name=resnext"], "model.name must be one of"),
    "layers": ([*NO_DATA, "--set=model.filters=8"], "model.filters must have 2"),
    "long warmup": ([*NO_DATA, "--set=train.steps=5", "--set=optimizer.warmup_steps=5"],
                     "optimizer.schedule.warmup_steps must be below"),
    "no weights": ([*NO_DATA, "--set=train.init_from=none_there"], "none_there: not a run folder"),
    "no data folder": ([*TRAIN, "--set=data.dataset=idx_files", "--set=data.folder=none_there"],
                       "none_there: no such folder"),
}


@pytest.mark.quick
@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_leaves_nothing(case, launch_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    assert_refused(launch_here, case, tmp_path)


@pytest.mark.parametrize("case", ["unknown flag", "unknown experiment", "no weights"])
def test_bad_input_ends_the_process_without_a_traceback(case, launch, tmp_path):
    assert_refused(functools.partial(
        launch, cwd=tmp_path, env={"TFDS_DATA_DIR": str(tmp_path / "data")}), case, tmp_path)


def assert_refused(launch, case, folder):
    arguments, message = REFUSED[case]
    done = launch(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert list(folder.rglob("*")) == []


PATTERNS = {
    "train": ["--experiment=mse_cnn"],
    "seeds": ["--experiment=mse_cnn", "--seeds=0..1"],
    "folds": ["--experiment=chinese_cnn", "--mode=folds"],
    "ablation": ["--ablation=mse_cnn"],
    "planned": ["--ablation=mse_cnn", "--dry_run"],
    "replicate": ["--mode=replicate", "--experiment=mse_cnn"],
}


@pytest.mark.parametrize("case", PATTERNS)
@pytest.mark.parametrize("name", ["two[1]", "a*b", "what?"])
def test_a_path_that_is_a_pattern_is_refused_before_anything(case, name, launch_here, tmp_path):
    """Orbax would save checkpoints there that nobody can read."""
    done = launch_here(*PATTERNS[case], f"--workdir={tmp_path / name / 'run'}")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"{tmp_path / name / 'run'}: a run cannot be saved in a path with" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_raw_data_is_one_line(launch, tmp_path):
    done = launch(*NO_DATA, cwd=tmp_path, env={"TFDS_DATA_DIR": str(tmp_path / "data")})
    assert done.returncode == 2 and done.stdout == ""
    assert "no_data" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("flag", ["--help", "--helpfull", "-h"])
def test_help_names_every_flag(flag, launch, tmp_path):
    done = launch(flag, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    for name in ("experiment", "mode", "list", "workdir", "set", "data", "raw_data_dir",
                 "data_dir", "checkpoint", "profile", "tensorboard", "coordinator",
                 "num_processes", "process_id"):
        assert f"--{name}" in done.stdout or f"--[no]{name}" in done.stdout


def test_list_names_every_experiment_and_study_with_its_title(launch, tmp_path):
    done = launch("--list", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    blocks = {}
    for block in done.stdout.split("\n\n"):
        flag, *lines = block.splitlines()
        blocks[flag] = dict(line.split(maxsplit=1) for line in lines)
    assert blocks == {
        "--experiment=": list_experiments(), "--ablation=": list_experiments(ABLATIONS)}
    assert "dense_cnn" in blocks["--ablation="]


@pytest.mark.quick
def test_config_mode_prints_the_resolved_config(launch, tmp_path):
    done = launch("--experiment=kaggle_cnn", "--mode=config", "--set=seed=3", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    expected = to_dict(load_experiment("kaggle_cnn")) | {"seed": 3}
    assert json.loads(done.stdout) == expected
    assert list(tmp_path.rglob("*")) == []


def test_a_closed_pipe_causes_no_traceback(environment):
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does when it has enough
    done = subprocess.run(
        [sys.executable, str(LAUNCH), "--experiment=kaggle_cnn", "--mode=config"], stdout=writer,
        stderr=subprocess.PIPE, env=environment, text=True, check=False)
    os.close(writer)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_summary_mode_shows_the_layers(launch, tmp_path):
    done = launch("--experiment=mse_cnn", "--mode=summary", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    for text in ("544", "9,248", "8,010", "17,802", "(None, 25, 25, 32)", "(None, 10)"):
        assert text in done.stdout
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.quick
def test_modes_on_a_run_need_only_its_folder(finished, launch_here, idx_folder):
    config = launch_here("--mode=config", f"--workdir={finished}")
    assert json.loads(config.stdout)["data"]["folder"] == str(idx_folder)
    summary = launch_here("--mode=summary", f"--workdir={finished}")
    assert "Dense_1" in summary.stdout and "3,254" in summary.stdout
    prepare = launch_here("--mode=prepare", f"--workdir={finished}")
    fingerprint = json.loads((finished / "config.json").read_text())["data"]["fingerprint"]
    assert f"{idx_folder.name} (idx_files): 270 images of 28x28, 10 classes" in prepare.stdout
    assert fingerprint in prepare.stdout
    assert "split holdout: train 183, validation 17, test 70" in prepare.stdout
    for done in (config, summary, prepare):
        assert done.returncode == 0 and done.stderr == ""


def test_train_eval_and_compare_as_a_user_runs_them(
    launch, launch_here, idx_folder, tmp_path, monkeypatch
):
    workdir = tmp_path / "runs" / "mse_cnn"
    train = [
        "--experiment=mse_cnn", "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}",
        "--set=train.steps=4", "--set=model.filters=4,4"]
    done = launch(*train, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"mse_cnn: {idx_folder.name} (idx_files), split official, seed 0, on cpu x 1, "
        "in runs/mse_cnn")
    assert lines[-1] == (
        "complete at step 4: runs/mse_cnn/result.json, runs/mse_cnn/report.html")
    assert any(line.startswith("test ") and "of 70" in line for line in lines)
    assert not any(line.startswith("validation") for line in lines)
    assert "SYNTHETIC" not in done.stdout
    result = json.loads((workdir / "result.json").read_text())

    monkeypatch.chdir(tmp_path)
    done = launch_here(*train)
    assert done.returncode == 0 and "complete at step 4" in done.stdout

    done = launch("--mode=eval", f"--workdir={workdir}")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("step 4  train accuracy") and done.stdout.count("\n") == 1
    row = json.loads((workdir / "eval.jsonl").read_text())
    recorded = json.loads((workdir / "config.json").read_text())["data"]["fingerprint"]
    assert row == {"step": 4, "fingerprint": recorded} | {
        name: result[name] for name in row if name not in ("step", "fingerprint")}

    done = launch_here("--mode=compare", f"--workdir={workdir}", "--workdir=runs/*")
    assert done.returncode == 0 and done.stderr == ""
    accuracy = f"{result['test_accuracy']:.3%}"
    assert sum(accuracy in line for line in done.stdout.splitlines()) == 2


@pytest.mark.quick
def test_compare_uses_only_the_run_folders_of_a_pattern(finished, launch_here, tmp_path):
    """A folder may also contain studies, benchmarks and seeds."""
    for name in ("a", "two[1]"):
        shutil.copytree(finished, tmp_path / name)
    for name in ("ablations/mine", "seeds/seeds/0"):
        shutil.copytree(finished, tmp_path / name / "run")
    (tmp_path / "notes.txt").write_text("mine")
    done = launch_here("--mode=compare", f"--workdir={tmp_path}/*", f"--workdir={finished}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert sum("%" in line for line in done.stdout.splitlines()) == 3
    done = launch_here("--mode=compare", f"--workdir={tmp_path / 'two[1]'}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for named in ("ablations", "seeds/*/x*", "s*"):
        done = launch_here("--mode=compare", f"--workdir={finished}",
                           f"--workdir={tmp_path / named}")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"{tmp_path / named}: not a run folder" in done.stderr


EVAL_REFUSED = [
    ("--checkpoint=7", "expected last, best, all or one of the steps 2, 4, 6"),
    ("--checkpoint=first", "one of the steps 2, 4, 6"),
    ("--checkpoint=-2", "one of the steps 2, 4, 6"),
    ("--checkpoint=", "one of the steps 2, 4, 6"),
    ("--set=seed=1", "leave out --set"),
]


@pytest.mark.quick
@pytest.mark.parametrize(("flag", "message"), EVAL_REFUSED)
def test_eval_refuses(flag, message, finished, launch_here):
    done = launch_here("--mode=eval", f"--workdir={finished}", flag)
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (finished / "eval.jsonl").exists()


def test_eval_refuses_other_data(finished_copy, launch_here):
    path = finished_copy / "config.json"
    start = json.loads(path.read_text())
    fingerprint = start["data"]["fingerprint"]
    path.write_text(json.dumps(start | {"data": start["data"] | {"fingerprint": "0" * 64}}))
    done = launch_here("--mode=eval", f"--workdir={finished_copy}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "0" * 64 in done.stderr and fingerprint in done.stderr


@pytest.mark.slow
def test_synthetic_data_is_noted_at_both_ends_and_refused_as_real(
    launch, launch_here, environment, tmp_path
):
    train = ["--experiment=chinese_cnn", "--set=train.steps=2", "--set=data.limit=64",
             "--set=model.filters=1,1,1", "--set=model.dense=4", f"--workdir={tmp_path / 'run'}",
             f"--raw_data_dir={tmp_path / 'none'}"]
    done = launch(*train, "--data=synthetic")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    said = [number for number, line in enumerate(lines) if line.startswith("SYNTHETIC DATA")]
    assert said[0] == 1 and said[-1] == len(lines) - 2
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["data_source"] == "drawn"
    assert (result["train_examples"], result["validation_examples"]) == (64, 3_000)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["source"] == "drawn"

    data_dir = f"--data_dir={environment['TFDS_DATA_DIR']}"
    done = launch_here("--mode=eval", f"--workdir={tmp_path / 'run'}", data_dir)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("SYNTHETIC DATA")

    (tmp_path / "run" / "result.json").unlink()
    done = launch_here(f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("SYNTHETIC DATA")

    done = launch_here(*train, "--data=real", data_dir)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "none" in done.stderr
