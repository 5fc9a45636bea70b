"""A study on a real Ray cluster of three nodes and two workers, on this machine."""

import json
import os
import signal
from pathlib import Path

import jax
import pytest
from ray.cluster_utils import Cluster
from test_training_resume import wait_for

import flaxdigits
from flaxdigits.training.provenance import machine
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]

STUDY = '''"""Rates of a small network."""
from flaxdigits.studies.study import Study

def get_study():
    return Study(
        experiment="{experiment}", seeds=(0, 1),
        overrides=("data.dataset=idx_files", "data.folder={folder}", "data.split=holdout",
                   "model.filters=4,4", "train.steps=40", "checkpoint.every_steps=2",
                   "checkpoint.keep=none"),
        variants={{"fast": ("optimizer.learning_rate=0.1",),
                  "fatal": ("train.loss=cross_entropy", "optimizer.learning_rate=1e30")}})
'''
EXPERIMENT = '''import dataclasses
from flaxdigits.experiments import load_experiment
from flaxdigits.components import register
from flaxdigits.models import MseCnnConfig

@register("own_net")
@dataclasses.dataclass(frozen=True)
class OwnNet(MseCnnConfig):
    pass

def get_config():
    base = load_experiment("mse_cnn")
    return dataclasses.replace(base, model=OwnNet(**vars(base.model)))
'''


@pytest.fixture(scope="module")
def study(idx_folder, tmp_path_factory):
    """A study of an experiment with an architecture of its own, which workers must learn of."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "own.py").write_text(EXPERIMENT)
    path = folder / "rates.py"
    path.write_text(STUDY.format(folder=idx_folder, experiment=folder / "own.py"))
    return path


@pytest.fixture
def cluster(environment, monkeypatch):
    """A head that runs nothing, and two nodes of one CPU each, as `cluster.workers`."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster
    cluster.shutdown()


def working(node) -> list[int]:
    """The processes of a node that train a run now."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = [int(pid) for path in Path(f"/proc/{raylet}/task").glob("*/children")
                for pid in path.read_text().split()]
    return [pid for pid in children
            if "ray::train_remote_run" in Path(f"/proc/{pid}/cmdline").read_text()]


def saved(workdir, at_least):
    """The first checkpoint of each run that has so many and has not ended."""
    found = []
    for path in workdir.glob("*/seeds/*"):
        steps = [int(one.name) for one in (path / "checkpoints").glob("*") if one.name.isdecimal()]
        if len(steps) >= at_least and not (path / "result.json").exists():
            found.append(path / "checkpoints" / str(min(steps)))
    return found


def results(workdir):
    return {str(path.parent.relative_to(workdir)): json.loads(path.read_text())
            for path in workdir.glob("*/seeds/*/result.json")}


@pytest.mark.slow
def test_runs_are_resumed_when_a_worker_is_killed_or_a_node_is_lost(
    cluster, study, start, tmp_path
):
    workdir = tmp_path / "ray"
    process = start(f"--ablation={study}", f"--workdir={workdir}", "--executor=ray",
                    env={"RAY_ADDRESS": cluster.address})
    wait_for(lambda: len(saved(workdir, 4)) == 2, process)
    started = {path: path.stat().st_mtime_ns for path in saved(workdir, 2)}
    (victim,) = working(cluster.workers[0])
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: results(workdir) and working(cluster.workers[1]), process)
    cluster.remove_node(cluster.workers[1], allow_graceful=False)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    # No run was started again.
    assert started == {path: path.stat().st_mtime_ns for path in started}

    rows = json.loads((workdir / "study.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["base", "fast", "fatal"]
    assert rows[2]["diverged"] == [0, 1] and len(results(workdir)) == 4
    summary = json.loads((workdir / "fast" / "summary.json").read_text())
    assert summary["finished"] == [0, 1]
    assert "Ray, 1 CPU core and 0 GPUs per run (cpu x 1)" in (workdir / "study.md").read_text()
    for name, result in results(workdir).items():
        about = RunFolder(workdir / name).metadata()  # the worker's own
        assert about["machine"] == machine() and about["versions"]["jax"]
        lines = (workdir / name / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == sorted(set(steps)) and steps[-1] == result["steps"] == 40


@pytest.mark.slow
def test_a_signal_saves_running_tasks_which_are_resumed_locally(study, start, launch, tmp_path):
    """Without a cluster Ray starts workers on this machine."""
    recipe = [f"--ablation={study}", f"--workdir={tmp_path}", "--seeds=0"]
    process = start(*recipe, "--executor=ray", "--cpus_per_run=1")
    wait_for(lambda: saved(tmp_path, 2), process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "seed 0: saved at step" in output and "paused by SIGTERM" in output
    started = {path: path.stat().st_mtime_ns for path in saved(tmp_path, 1)}
    assert started
    completed = launch(*recipe)
    assert completed.returncode == 0, completed.stderr
    assert started == {path: path.stat().st_mtime_ns for path in started}


@pytest.mark.slow
def test_what_a_worker_refuses_is_one_line(study, launch, tmp_path):
    recipe = [f"--ablation={study}", f"--workdir={tmp_path}", "--executor=ray", "--seeds=7"]
    (tmp_path / "base" / "seeds" / "7").mkdir(parents=True)
    (tmp_path / "base" / "seeds" / "7" / "checkpoints").write_text("no folder")
    completed = launch(*recipe)
    assert completed.returncode == 2 and "Traceback" not in completed.stderr, completed.stderr
    assert completed.stderr.startswith("error: base, seed 7: ")
    assert completed.stderr.count("\n") == 1
    completed = launch(*recipe, env={"RAY_ADDRESS": "nowhere"})
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert completed.stderr.startswith("error: cannot reach the Ray cluster: ")


def test_a_call_does_not_change_the_devices_of_its_caller(study):
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    try:
        planned = flaxdigits.run_ablation(study, executor="ray", dry_run=True, seeds=[0])
        assert planned.variants == [] and jax.config.jax_platforms is None
    finally:
        jax.config.update("jax_platforms", before)


def test_the_flags_of_ray_are_refused_without_it(launch_here, study):
    for arguments, message in (
            (("--experiment=mse_cnn", "--executor=ray"), "--executor is only for --ablation"),
            ((f"--ablation={study}", "--gpus_per_run=1"), "--gpus_per_run is for --executor=ray")):
        completed = launch_here(*arguments)
        assert completed.returncode == 2 and completed.stderr.count("\n") == 1
        assert message in completed.stderr
