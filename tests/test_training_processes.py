"""Several processes of one run, of which one is killed, stopped, fails or never comes."""

import signal
import socket
import subprocess
import sys

import pytest
from conftest import ROOT

RECIPE = [
    "--experiment=dense_cnn", "--set=data.dataset=idx_files", "--set=data.split=holdout",
    "--set=train.batch_size=30", "--set=train.epochs=2", "--set=model.filters=4,4",
    "--set=model.dense=16", "--set=data.preprocessing=unit", "--set=optimizer.name=sgd",
    "--set=optimizer.learning_rate=0.02"]

# Runs launch.py, but sends this process a signal when it first comes to a function.
FAULTY = """
import importlib, os, runpy, sys

place, number = sys.argv.pop(1), int(sys.argv.pop(1))
module, _, name = place.partition(":")
*owners, name = name.split(".")
owner = importlib.import_module(module)
for part in owners:
    owner = getattr(owner, part)

def fault(*arguments, **options):
    os.kill(os.getpid(), number)
    return function(*arguments, **options)

function = getattr(owner, name)
setattr(owner, name, fault)
runpy.run_path("launch.py", run_name="__main__")
"""
PHASES = {
    "connecting": "jax.distributed:initialize",
    "preparing data": "flaxdigits.api.session:Session.load",
    "comparing": "flaxdigits.training.runs:check_same_everywhere",
    "compiling": "flaxdigits.training.program:compile_with_onednn",
    "training": "flaxdigits.training.program:TrainProgram.arguments",
    "evaluating": "flaxdigits.training.experiment:Experiment.predict",
    "saving": "flaxdigits.training.checkpoints:Checkpoints.save",
    "reporting": "flaxdigits.training.trainer:FinishedRun",
    "ending": "jax.distributed:shutdown",
}


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture
def start(environment, idx_folder, tmp_path):
    """Starts one process of a run; `fault` is a phase and the signal that comes in it."""
    port, started = free_port(), []

    def start_one(process, processes=2, *arguments, fault=None, folder=idx_folder):
        script = [str(ROOT / "launch.py")]
        if fault is not None:
            script = ["-c", FAULTY, PHASES[fault[0]], str(int(fault[1]))]
        started.append(subprocess.Popen(
            [sys.executable, *script, *RECIPE, f"--set=data.folder={folder}",
             f"--workdir={tmp_path / 'run'}", f"--coordinator=localhost:{port}",
             f"--num_processes={processes}", f"--process_id={process}", *arguments],
            cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def end(process):
    """The exit status and the lines on standard error."""
    errors = process.communicate(timeout=240)[1]
    return process.returncode, errors.splitlines()


def assert_names(process, *words):
    """It ends with status 1 and one line with these words."""
    status, lines = end(process)
    assert status == 1 and len(lines) == 1, lines
    assert lines[0].startswith("error: "), lines
    for word in words:
        assert word in lines[0], lines


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "lost"), [
    ("connecting", 1), ("preparing data", 0), ("comparing", 1), ("compiling", 0), ("training", 0),
    ("training", 1), ("evaluating", 1), ("saving", 0), ("reporting", 0), ("ending", 0),
    ("ending", 1)])
def test_the_other_process_names_the_killed_one(phase, lost, start):
    processes = {lost: start(lost, fault=(phase, signal.SIGKILL)), 1 - lost: start(1 - lost)}
    assert_names(processes[1 - lost], f"process {lost} of 2 (pid {processes[lost].pid} ",
                 "ended without notice")


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "lost"), [
    ("connecting", 0), ("compiling", 1), ("training", 0), ("saving", 1), ("ending", 1)])
def test_the_other_process_names_the_stopped_one(phase, lost, start):
    processes = {lost: start(lost, fault=(phase, signal.SIGSTOP)), 1 - lost: start(1 - lost)}
    assert_names(processes[1 - lost], f"process {lost} of 2 (pid {processes[lost].pid} ",
                 "silent for 20 s")


@pytest.mark.slow
def test_three_processes_name_the_killed_one_and_all_four_go_on(start, tmp_path):
    processes = [start(process, 4, fault=("reporting", signal.SIGKILL) if process == 2 else None)
                 for process in range(4)]
    for process in (0, 1, 3):
        assert_names(processes[process], "process 2 of 4 ", "the same command")
    again = [start(process, 4) for process in range(4)]
    first, *others = map(end, again)
    assert first[0] == 0 and len(first[1]) == 1 and "resuming at step " in first[1][0]
    assert others == [(0, [])] * 3
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("failed", [0, 1])
def test_the_other_process_names_the_one_that_cannot_read_its_data(failed, start, tmp_path):
    processes = {failed: start(failed, folder=tmp_path / "none"), 1 - failed: start(1 - failed)}
    assert_names(processes[1 - failed], f"process {failed} of 2 ", "ended with an error: ",
                 str(tmp_path / "none"))
    status, lines = end(processes[failed])
    assert status == 2 and len(lines) == 1 and str(tmp_path / "none") in lines[0]


@pytest.mark.parametrize(("process", "words"), [
    (0, "process 1 of 2 did not connect within 1 s"),
    (1, "process 0 of 2 did not answer at localhost:")])
def test_a_process_that_never_comes_is_named(process, words, start, tmp_path):
    status, lines = end(start(process, 2, "--connect_timeout=1"))
    assert status == 2 and len(lines) == 1 and words in lines[0]
    assert not (tmp_path / "run").exists()


# Processes that JAX has connected itself, as on SLURM and TPUs: they meet by its collectives.
CONNECTED = """
import sys
from flaxdigits.cli.process import configure_process
configure_process()  # begins the process again, which would end a connection
import jax
jax.distributed.initialize(f"localhost:{sys.argv.pop(1)}", 2, int(sys.argv.pop(1)))
"""


@pytest.mark.slow
def test_processes_that_jax_has_connected_watch_each_other(environment, idx_folder, tmp_path):
    port = str(free_port())
    processes = [subprocess.Popen(
        [sys.executable, "-c", CONNECTED + FAULTY, port, str(process), PHASES["training"],
         str(number), *RECIPE, f"--set=data.folder={idx_folder}", f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for process, number in enumerate((int(signal.SIGKILL), 0))]  # 0 is no signal
    assert_names(processes[1], f"process 0 of 2 (pid {processes[0].pid} ", "ended without notice")
    processes[0].communicate()
