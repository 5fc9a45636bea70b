"""What can only be shown on a GPU: `pytest -m gpu`, without network, in a few minutes.

`pytest -m gpu --device=cpu` runs the same tests on the CPU at reduced size, so that they are known
to work before there is a GPU; there the two sides of most comparisons are the same.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from gpu_side import ROUNDED, SEEDS
from test_export import PROGRAM
from test_training_resume import assert_bitwise_equal

from flaxdigits.experiments import list_experiments

pytestmark = pytest.mark.gpu

ON_CPU = {"JAX_PLATFORMS": "cpu"}
# JAX chooses the GPU if there is one; the processes of a test share its memory.
ON_GPU = {"JAX_PLATFORMS": "", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@pytest.fixture(scope="module")
def is_gpu(request, environment):
    """Whether the tests run on a GPU; without one they are skipped, unless --device=cpu."""
    if request.config.getoption("device") == "cpu":
        return False
    found = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend())"],
        env=environment | ON_GPU, capture_output=True, text=True, check=False).stdout.strip()
    if found != "gpu":
        pytest.skip("JAX finds no GPU; --device=cpu runs this test at reduced size on the CPU")
    return True


@pytest.fixture(scope="module")
def device(is_gpu):
    """The environment variables of processes that use the device."""
    return ON_GPU if is_gpu else ON_CPU


@pytest.fixture(scope="module")
def sides(is_gpu, device, environment, tmp_path_factory):
    """The folders in which gpu_side.py has written: of the CPU, and of the device."""
    folders, processes = [], []
    for name, platform in (("cpu", ON_CPU), ("device", device)):
        folders.append(tmp_path_factory.mktemp(name))
        processes.append(subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "gpu_side.py"), str(folders[-1]),
             *([] if is_gpu else ["--reduced"])], cwd=ROOT, stderr=subprocess.PIPE, text=True,
            env=environment | platform | {"PYTHONPATH": str(ROOT)}))
        if not is_gpu:  # the second finds what the first has compiled
            processes[-1].wait()
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    return folders


@pytest.fixture(scope="module")
def facts(sides):
    return json.loads((sides[1] / "facts.json").read_text())


def read(folder, name):
    with np.load(folder / f"{name}.npz") as found:
        return found["losses"], found["updates"]


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_the_device_is_the_one_that_is_tested(facts, is_gpu):
    assert facts["platform"] == ("gpu" if is_gpu else "cpu")


@pytest.mark.parametrize("name", list_experiments())
def test_first_steps_equal_those_on_the_cpu(name, sides):
    """Optimizers divide by the size of the gradient, so that rounding of tiny gradients counts.

    On a CPU native convolutions in place of those of the package changed the updates by up to 2 %;
    `kaggle_cnn` was not measured.
    """
    (losses, updates), (expected_losses, expected) = (
        read(folder, f"{name}_fp32") for folder in reversed(sides))
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    assert np.isfinite(updates).all()
    assert relative_error(updates, expected) < 0.1


@pytest.mark.parametrize(("precision", "tolerance"), [("tf32", 2e-3), ("bf16", 2e-2)])
def test_lower_precisions_are_close_to_fp32(precision, tolerance, sides, is_gpu):
    losses, updates = read(sides[1], f"{ROUNDED}_{precision}")
    exact_losses, exact = read(sides[1], f"{ROUNDED}_fp32")
    np.testing.assert_allclose(losses, exact_losses, rtol=tolerance)
    error = relative_error(updates, exact)
    assert error < 0.5
    assert (error == 0) == (precision == "tf32" and not is_gpu)  # else it is not used at all


def test_seeds_under_vmap_equal_single_runs(sides, facts):
    assert facts["seeds_per_call"] == SEEDS
    (losses, updates), (single_losses, single) = (
        read(sides[1], name) for name in ("seeds", "single_runs"))
    assert losses.shape[0] == SEEDS and len(np.unique(losses[:, -1])) == SEEDS
    np.testing.assert_allclose(losses, single_losses, rtol=1e-4)
    for seed in range(SEEDS):
        assert relative_error(updates[seed], single[seed]) < 0.1


def test_memory_of_a_step_is_known_and_bounded(facts, is_gpu):
    memory = facts["memory"]
    assert memory["free"] > 0 and memory["step"] < memory["bound"]
    if is_gpu:
        assert memory["in_use"] < 2 * memory["arguments"] + 100e6  # nothing of a step is kept
        assert memory["free"] < memory["limit"]


def test_a_network_that_is_too_large_is_refused(launch, device, idx_folder, tmp_path):
    done = launch("--experiment=dense_cnn", "--set=data.dataset=idx_files",
                  f"--set=data.folder={idx_folder}", "--set=data.split=holdout",
                  "--set=model.dense=100000000", f"--workdir={tmp_path / 'run'}", env=device)
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()  # a driver may print, too
    assert last.startswith("error: ") and "GB of memory, but only" in last and "GB are free" in last
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def recipe(idx_folder, is_gpu):
    size = ["--set=train.batch_size=64"] if is_gpu else [
        "--set=train.batch_size=16", "--set=model.filters=2,2,4,4"]
    return [
        "--experiment=mnist_cnn", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", "--set=data.split=holdout", "--set=train.steps=20",
        "--set=checkpoint.every_steps=5", "--set=train.log_every=5", "--set=train.ema_decay=0.99",
        "--set=data.augmentation.zoom=0.1", "--set=train.deterministic=true", *size]


@pytest.fixture(scope="module")
def trained(recipe, launch, device, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    done = launch(*recipe, f"--workdir={workdir}", env=device)
    assert done.returncode == 0, done.stderr
    return workdir


def test_a_deterministic_run_is_resumed_bitwise(trained, recipe, launch, device, tmp_path):
    for more in (["--set=train.stop_after=7"], []):
        done = launch(*recipe, *more, f"--workdir={tmp_path}", env=device)
        assert done.returncode == 0, done.stderr
    assert_bitwise_equal(tmp_path, trained)
    assert json.loads((tmp_path / "result.json").read_text())["deterministic"] is True


def test_an_exported_program_runs_on_device_and_cpu(
    trained, launch, device, environment, tmp_path
):
    run = shutil.copytree(trained, tmp_path / "run")
    done = launch("--mode=export", f"--workdir={run}", env=device)
    assert done.returncode == 0, done.stderr
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
    np.save(tmp_path / "images.npy", images)
    logits = []
    for number, platform in enumerate((device, ON_CPU)):
        out = tmp_path / f"{number}.npz"
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, run / "export", tmp_path / "images.npy", out],
            cwd=tmp_path, env=environment | platform, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with np.load(out) as found:
            logits.append(found["logits"])
    assert len(np.unique(logits[0].round(3))) > 20, "else this test shows nothing"
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-4)
