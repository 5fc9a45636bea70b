"""One device, four under jit, four under pmap, and two processes all train the same network."""

import json
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT

from flaxdigits.training import processes
from flaxdigits.training.checkpoints import Checkpoints, flat_arrays

pytest_plugins = ["tiny_run"]

# Everything that could depend on the devices: dropout, batch statistics, augmentation, a batch
# that four do not divide, a smaller last one. SGD, because Adam and Adadelta blow rounding up.
RECIPE = [
    "--experiment=dense_cnn", "--set=data.dataset=idx_files", "--set=data.split=holdout",
    "--set=train.epochs=2", "--set=train.batch_size=30", "--set=train.log_every=2",
    "--set=model.batch_norm=true", "--set=model.filters=4,4", "--set=model.dense=16",
    "--set=data.preprocessing=unit",
    "--set=data.augmentation.shift=0.1", "--set=data.augmentation.rotation=5",
    "--set=train.ema_decay=0.9", "--set=optimizer.name=sgd", "--set=optimizer.learning_rate=0.02",
]


@pytest.fixture(scope="module")
def one_device(launch, idx_folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    done = launch(*RECIPE, f"--set=data.folder={idx_folder}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def weights_and_metrics(workdir):
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        arrays = flat_arrays(checkpoints.restore_arrays(checkpoints.last()))
    finally:
        checkpoints.close()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return arrays, rows


def assert_equal_runs(workdir, expected_workdir):
    arrays, rows = weights_and_metrics(workdir)
    expected_arrays, expected_rows = weights_and_metrics(expected_workdir)
    assert arrays.keys() == expected_arrays.keys()
    for name, expected in expected_arrays.items():
        np.testing.assert_allclose(arrays[name], expected, rtol=2e-4, atol=2e-5, err_msg=name)
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    for row, expected in zip(rows, expected_rows, strict=True):
        np.testing.assert_allclose(row["train_loss"], expected["train_loss"], rtol=1e-4)


@pytest.mark.parametrize("kind", ["jit", pytest.param("pmap", marks=pytest.mark.slow)])
def test_four_devices_equal_one(kind, launch, idx_folder, tmp_path, one_device):
    done = launch(*RECIPE, f"--set=data.folder={idx_folder}", f"--workdir={tmp_path}",
                  f"--set=train.parallel={kind}", env={"JAX_NUM_CPU_DEVICES": "4"})
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["device"] == "cpu x 4"
    assert_equal_runs(tmp_path, one_device)


REORDERED = """
import runpy
import jax
import numpy as np

jax.make_mesh = lambda sizes, names, axis_types: jax.sharding.Mesh(
    np.array(jax.devices())[[0, 1, 3, 2]], names, axis_types=axis_types)
runpy.run_path("launch.py", run_name="__main__")
"""


@pytest.mark.slow
def test_pmap_takes_the_devices_in_the_order_of_their_mesh(
    environment, idx_folder, tmp_path, one_device
):
    """On TPUs JAX puts neighbors side by side."""
    done = subprocess.run(
        [sys.executable, "-c", REORDERED, *RECIPE, f"--set=data.folder={idx_folder}",
         f"--workdir={tmp_path}", "--set=train.parallel=pmap"],
        cwd=ROOT, text=True, capture_output=True, check=False,
        env=environment | {"JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert_equal_runs(tmp_path, one_device)


def start_two(start, *each, common=()):
    """Two processes of two devices; `each` gives both of them arguments of their own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        start(*RECIPE, *common, *own, f"--coordinator=localhost:{port}", "--num_processes=2",
              f"--process_id={index}", env={"JAX_NUM_CPU_DEVICES": "2"})
        for index, own in enumerate(each or ([], []))]


def ends(processes):
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    return [process.returncode for process in processes], outputs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_two_processes_equal_one(kind, start, idx_folder, tmp_path, one_device):
    common = (f"--set=data.folder={idx_folder}", f"--workdir={tmp_path}",
              f"--set=train.parallel={kind}")
    # Paused half-way, so that both are also resumed from a checkpoint.
    codes, outputs = ends(start_two(start, common=(*common, "--set=train.stop_after=5")))
    assert codes == [0, 0], outputs
    codes, outputs = ends(start_two(start, common=common))
    assert codes == [0, 0], outputs
    assert "step" in outputs[0] and "step" not in outputs[1], "only process 0 prints"
    assert json.loads((tmp_path / "result.json").read_text())["device"] == "cpu x 4"
    assert_equal_runs(tmp_path, one_device)


@pytest.mark.slow
def test_a_signal_to_one_process_pauses_both(start, idx_folder, tmp_path):
    processes = start_two(start, common=(
        f"--set=data.folder={idx_folder}", f"--workdir={tmp_path}", "--set=train.epochs=100000"))
    end = time.monotonic() + 200
    while not (tmp_path / "metrics.jsonl").exists():
        assert time.monotonic() < end and processes[0].poll() is None
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    codes, outputs = ends(processes)
    assert codes == [128 + signal.SIGTERM] * 2, outputs
    assert "paused by SIGTERM" in outputs[0]


@pytest.mark.slow
def test_two_processes_start_from_the_weights_of_another_run(
    start, idx_folder, tmp_path, one_device
):
    codes, outputs = ends(start_two(start, common=(
        f"--set=data.folder={idx_folder}", f"--workdir={tmp_path}",
        f"--set=train.init_from={one_device}", "--set=train.epochs=1",
        "--set=optimizer.learning_rate=1e-12")))
    assert codes == [0, 0], outputs
    weights, first = weights_and_metrics(tmp_path)[0], weights_and_metrics(one_device)[0]
    for name in first:
        if name.startswith("params."):  # it starts from the averaged ones
            expected = first[name.replace("params.", "ema.", 1)]
            np.testing.assert_allclose(weights[name], expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("setting", "word"), [
    ("seed=1", "config"), pytest.param("workdir", "run folder", marks=pytest.mark.slow)])
def test_processes_that_differ_are_refused(setting, word, start, idx_folder, tmp_path, one_device):
    if setting == "workdir":
        each = [f"--workdir={one_device}"], [f"--workdir={tmp_path}"]
    else:
        each = [f"--workdir={tmp_path}"], [f"--workdir={tmp_path}", f"--set={setting}"]
    codes, outputs = ends(start_two(start, *each, common=(f"--set=data.folder={idx_folder}",)))
    assert codes == [2, 2], outputs
    assert f"do not all have the same {word}" in outputs[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [
    ["--experiment=mnist_cnn", "--mode=eval"], ["--experiment=mnist_cnn", "--seeds=0..1"],
    ["--ablation=mse_cnn"]])
def test_process_flags_are_for_a_single_training(arguments, launch_here):
    done = launch_here(*arguments, "--coordinator=localhost:1", "--num_processes=2",
                       "--process_id=1")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--coordinator is only for --mode=train" in done.stderr


@pytest.mark.parametrize("arguments", [
    ["--experiment=mnist_cnn", "--seeds=0"], ["--experiment=chinese_cnn", "--mode=folds"],
    ["--mode=replicate"], ["--ablation=mse_cnn"]])
def test_several_runs_are_refused_to_the_tasks_of_slurm(
    arguments, launch_here, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    done = launch_here(*arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "one of 4 tasks of a SLURM step" in done.stderr and list(tmp_path.iterdir()) == []


def test_incomplete_or_wrong_process_flags_are_refused(launch):
    incomplete = launch("--experiment=mnist_cnn", "--num_processes=2")
    outside = launch("--experiment=mnist_cnn", "--coordinator=localhost:1", "--num_processes=2",
                     "--process_id=2")
    for done, word in ((incomplete, "coordinator"), (outside, "process_id")):
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert word in done.stderr


@pytest.mark.parametrize(("tasks", "seen", "own"), [
    ("8(x4)", "0,1,2,3,4,5,6,7", None),  # one each, which JAX sees to
    ("8(x4)", "3", [0]),  # --gpus-per-task=1 shows a task only its own
    ("1(x4)", "0,1,2,3", [0, 1, 2, 3]),
    ("1", "", None),
])
def test_a_task_of_slurm_takes_its_own_gpus(tasks, seen, own, monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: asked.append(given))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    processes.connect(None, None, None)
    assert asked == [(None, None, None, own)]


def test_a_connected_process_is_not_connected_again(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: pytest.fail("again"))
    processes.connect("localhost:1", 1, 0)  # the second training in a notebook


def test_a_tpu_without_reachable_metadata_is_a_single_process(monkeypatch, caplog):
    def refuse(*given):
        raise OSError("no route to metadata.google.internal")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    monkeypatch.setattr(processes, "_is_on_a_tpu_machine", lambda: True)
    processes.connect(None, None, None)
    assert "a single TPU machine" in caplog.text


ONE_STEP = """
import dataclasses, json, sys
import jax, numpy as np, optax
from flaxdigits.augmentations import Affine
from flaxdigits.config import DataConfig, ExperimentConfig, TrainConfig
from flaxdigits.data.batches import BatchPlan
from flaxdigits.models import MnistCnnConfig, ResNetConfig, VitConfig, build_model
from flaxdigits.training.parallel import Devices, all_positions, parallel_steps
from flaxdigits.training.state import create_train_state, init_variables
from flaxdigits.training.step import DeviceDataset, Streams, TrainTask

cnn = MnistCnnConfig((4, 4, 8, 8), (16,), (0.2, 0.2, 0.5), sys.argv[2] == "batch_norm")
models = {"batch_norm": cnn, "plain": cnn, "resnet": ResNetConfig(width=4),
          "vit": VitConfig(patch_size=7, depth=1, heads=2, width=8, dropout=0.3)}
config = ExperimentConfig(
    "step", models[sys.argv[2]],
    DataConfig(dataset="mnist", preprocessing="unit",
               augmentation=(Affine(rotation=5, zoom=0.1, shift=0.1),)),
    train=TrainConfig(batch_size=30, ema_decay=0.9))
images = np.random.default_rng(0).integers(0, 256, (30, 28, 28, 1)).astype(np.uint8)
images[:, :9] = 0
keep = optax.GradientTransformation(
    lambda params: jax.tree.map(np.zeros_like, params), lambda gradient, state, params: (
        jax.tree.map(lambda array: -0.1 * array, gradient), gradient))
model = build_model(config.model, 10)
variables = jax.device_get(init_variables(model, 0, (28, 28, 1)))
arrays = {}
for count in map(int, sys.argv[3].split(",")):
    for kind in ("jit", "pmap"):
        devices = Devices(jax.sharding.Mesh(np.array(jax.devices()[:count]), ("data",)))
        train = dataclasses.replace(config.train, parallel=kind)
        task = TrainTask(dataclasses.replace(config, train=train), model, keep,
                         BatchPlan(30, 30, count), 10)
        state = devices.replicate(create_train_state(variables, keep, 0.9))
        state, report = parallel_steps(task, devices)(
            state, devices.replicate(DeviceDataset(images, np.arange(30, dtype=np.int32) % 10)),
            devices.replicate(np.arange(30, dtype=np.int32)), all_positions(task, devices),
            devices.replicate(Streams.of(0)), devices.replicate(np.int32(1)))
        found = {"loss": report.sums.loss, "gradient": state.opt_state, "ema": state.ema,
                 "model_state": state.model_state}
        for path, array in jax.tree_util.tree_leaves_with_path(found):
            arrays[f"{count} {kind} {jax.tree_util.keystr(path)}"] = np.asarray(array)
np.savez(sys.argv[1], **arrays)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("model", "counts"), [
    ("batch_norm", (1, 2, 3, 4)), ("plain", (1, 2, 3, 4)), ("resnet", (1, 3)), ("vit", (1, 3))])
def test_one_step_is_the_same_on_one_to_four_devices(model, counts, environment, tmp_path):
    """With dropout, averaged weights and augmentation; three and four do not divide the batch."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_STEP, str(tmp_path / "arrays.npz"), model,
         ",".join(map(str, counts))], cwd=ROOT, text=True,
        capture_output=True, check=False, timeout=280,
        env=environment | {"JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        names = [name.removeprefix("1 jit ") for name in arrays if name.startswith("1 jit ")]
        assert "['loss']" in names and len(names) > 20
        for name in names:
            expected = arrays[f"1 jit {name}"]
            # Of the whole tree: the gradient of a bias before batch norm is nothing but rounding.
            tree = name.partition("]")[0]
            largest = max(np.abs(arrays[f"1 jit {other}"]).max() for other in names
                          if other.startswith(tree))
            assert largest > 0, name
            for count in counts:
                for kind in ("jit", "pmap"):
                    np.testing.assert_allclose(
                        arrays[f"{count} {kind} {name}"], expected, rtol=0, atol=1e-5 * largest,
                        err_msg=f"{count} devices, {kind}, {name}")
