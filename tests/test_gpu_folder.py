"""The tests for a GPU run on the CPU too, and the folder for a GPU machine holds what they need."""

import os
import subprocess
import sys

import gpu_folder
import pytest
from conftest import ROOT


def run_gpu_tests(environment, *arguments):
    """Runs pytest -m gpu in a process that sees no GPU."""
    kept = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "tests/test_gpu.py", "-n", "0", *arguments],
        cwd=ROOT, env=kept | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
        check=False)


@pytest.mark.slow
def test_the_tests_for_a_gpu_pass_on_the_cpu_at_reduced_size(environment):
    done = run_gpu_tests(environment, "--device=cpu")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "SKIPPED" not in done.stdout


@pytest.mark.slow
def test_without_a_gpu_they_are_skipped_and_say_why(environment):
    done = run_gpu_tests(environment)
    assert done.returncode == 0, done.stdout
    assert "JAX finds no GPU; --device=cpu runs this test" in done.stdout
    assert " skipped" in done.stdout and " passed" not in done.stdout


def test_the_wheels_are_those_that_a_machine_with_jax_lacks():
    wheels = gpu_folder.dependencies(gpu_folder.project_requirements())
    direct = {"tensorflow-datasets", "array-record", "orbax-checkpoint", "flax", "pytest-xdist"}
    indirect = {"promise", "msgpack", "execnet"}  # of tensorflow-datasets, flax, pytest-xdist
    assert direct | indirect <= wheels.keys()
    assert not gpu_folder.MACHINE & wheels.keys()
    assert "colorama" not in wheels  # only for Windows


@pytest.mark.parametrize(("raw", "exists", "message"), [
    (None, False, "FLAXDIGITS_RAW_DATA names no folder"), ("raw", True, "exists")])
def test_it_needs_raw_data_and_a_new_folder(raw, exists, message, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("FLAXDIGITS_RAW_DATA", raising=False)
    if raw is not None:
        monkeypatch.setenv("FLAXDIGITS_RAW_DATA", os.fspath(tmp_path / raw))
    folder = tmp_path if exists else tmp_path / "new"
    assert gpu_folder.main(folder) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())
