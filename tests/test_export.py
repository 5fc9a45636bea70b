"""Exported files say what the network says, in a process that has no flaxdigits."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from jax import export
from safetensors import safe_open

from flaxdigits.config import ExperimentConfig, ModelConfig
from flaxdigits.evaluation.export import PLATFORMS, onnx_file, program_file, weights_file
from flaxdigits.evaluation.trained import load_network
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]

WITHOUT_FLAXDIGITS = """
import json, sys
sys.modules["flaxdigits"] = None  # any import of it fails
import numpy as np
folder, images = sys.argv[1], np.load(sys.argv[2])
"""

PROGRAM = WITHOUT_FLAXDIGITS + """
import jax
file = np.load(f"{folder}/program.npz", allow_pickle=False)
program = jax.export.deserialize(bytearray(file["program"]))
assert images.shape[1:] == tuple(file["input_shape"]) and images.dtype == np.uint8
logits = np.concatenate([program.call(images[:1]), program.call(images[1:])])
np.savez(sys.argv[3], logits=logits, class_names=file["class_names"])
"""

# The tiny dense_cnn of tiny_run.py, in NumPy.
WEIGHTS = WITHOUT_FLAXDIGITS + """
from safetensors import safe_open
with safe_open(f"{folder}/weights.safetensors", "np") as file:
    metadata = file.metadata()
    weights = {name.removeprefix("params."): file.get_tensor(name) for name in file.keys()}
assert images.shape[1:] == tuple(json.loads(metadata["input_shape"]))
assert metadata["preprocessing"] == "unit" and json.loads(metadata["model"])["name"] == "dense_cnn"
x = np.pad(images / np.float32(255), ((0, 0), (1, 1), (1, 1), (0, 0)))
x = sum(x[:, i:i + 28, j:j + 28] @ weights["Conv_0.kernel"][i, j]
        for i in range(3) for j in range(3)) + weights["Conv_0.bias"]
x = np.maximum(x, 0).reshape(len(x), 14, 2, 14, 2, -1).max((2, 4)).reshape(len(x), -1)
x = np.maximum(x @ weights["Dense_0.kernel"] + weights["Dense_0.bias"], 0)
logits = x @ weights["Dense_1.kernel"] + weights["Dense_1.bias"]
np.savez(sys.argv[3], logits=logits, class_names=np.array(json.loads(metadata["class_names"])))
"""

ONNX = WITHOUT_FLAXDIGITS + """
sys.modules["jax"] = None
import onnxruntime
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
metadata = session.get_modelmeta().custom_metadata_map
assert session.get_inputs()[0].shape[1:] == json.loads(metadata["input_shape"])
logits = np.concatenate([session.run(["logits"], {"images": part})[0]
                         for part in (images[:1], images[1:])])
np.savez(sys.argv[3], logits=logits, class_names=np.array(json.loads(metadata["class_names"])))
"""


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory, launch):
    """The folder of the files that --mode=export writes."""
    run = shutil.copytree(finished, tmp_path_factory.mktemp("exported") / "run")
    done = launch("--mode=export", f"--workdir={run}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for name in ("program.npz", "weights.safetensors"):
        assert str(run / "export" / name) in done.stdout
    return run / "export"


@pytest.mark.parametrize("script", [
    pytest.param(PROGRAM, id="program"), pytest.param(WEIGHTS, id="weights"),
    pytest.param(ONNX, id="onnx", marks=pytest.mark.onnx)])
def test_the_logits_are_the_same_elsewhere(
    script, exported, finished, tiny_data, tmp_path, environment
):
    images = tiny_data.images[200:]
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", script, exported, tmp_path / "images.npy", tmp_path / "out.npz"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = np.asarray(load_network(RunFolder(finished)).logits(images))
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["logits"], expected, rtol=1e-4, atol=1e-5)
        assert out["class_names"].tolist() == [str(digit) for digit in range(10)]
    assert len(np.unique(expected.round(3))) > 100, "else this test shows nothing"


NETWORKS = {
    "chinese_cnn": ModelConfig("chinese_cnn", (2, 3, 4), (5,), (), True),
    "dense_cnn": ModelConfig("dense_cnn", (2,), (5,), (0.1,)),
    "kaggle_cnn": ModelConfig("kaggle_cnn", (2, 2, 3, 3), (5, 4), (0.1, 0.1, 0.1, 0.1)),
    "mnist_cnn": ModelConfig("mnist_cnn", (2, 2, 3, 3), (5,), (), True),
    "mse_cnn": ModelConfig("mse_cnn", (2, 3))}


@pytest.fixture(params=NETWORKS)
def network(request):
    """A fresh network of each architecture, its batch statistics moved from where they start."""
    import jax

    from flaxdigits.data.framing import FRAMINGS
    from flaxdigits.evaluation.trained import TrainedNetwork
    from flaxdigits.models import build_model
    from flaxdigits.training.state import init_variables

    is_chinese = request.param == "chinese_cnn"
    framing = FRAMINGS["chinese_mnist" if is_chinese else "mnist"]
    names = tuple("零一二三四五六七八九十百千万亿" if is_chinese else "0123456789")
    model = build_model(NETWORKS[request.param], len(names))
    variables = init_variables(model, 0, (framing.height, framing.width, 1))
    variables = jax.tree.map(lambda x: x + 0.01, variables)
    config = ExperimentConfig(request.param, NETWORKS[request.param])
    shape = (framing.height, framing.width, 1)
    return TrainedNetwork(config, 7, model, variables, names, framing, shape)


@pytest.fixture
def images(network):
    shape = (5, network.framing.height, network.framing.width, 1)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_programs_are_for_every_platform_and_any_batch(network, images, tmp_path):
    (tmp_path / "program.npz").write_bytes(program_file(network))
    with np.load(tmp_path / "program.npz", allow_pickle=False) as file:
        program = export.deserialize(bytearray(file["program"]))
        assert file["class_names"].tolist() == list(network.class_names) and file["step"] == 7
    assert program.platforms == PLATFORMS
    # Native on an accelerator; the module holds both forms.
    assert "stablehlo.convolution" in program.mlir_module()
    for batch in (1, 5):
        np.testing.assert_allclose(
            program.call(images[:batch]), network.logits(images[:batch]), rtol=1e-4, atol=1e-5)


def test_weights_have_the_names_of_the_layers(network, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(weights_file(network))
    with safe_open(tmp_path / "weights.safetensors", "np") as file:
        names, found = set(file.keys()), file.metadata()
        np.testing.assert_array_equal(
            file.get_tensor("params.Conv_0.kernel"),
            network.variables["params"]["Conv_0"]["kernel"])
    assert json.loads(found["class_names"]) == list(network.class_names)
    assert json.loads(found["step"]) == 7
    assert ("batch_stats.BatchNorm_0.mean" in names) == network.model.batch_norm


@pytest.mark.onnx
def test_onnx_gives_the_same_logits(network, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file(network))
    for batch in (1, 5):
        logits, = session.run(None, {"images": images[:batch]})
        np.testing.assert_allclose(
            logits, network.logits(images[:batch]), rtol=1e-4, atol=1e-5)


def test_export_is_of_a_run_as_it_was_trained(finished, launch_here):
    done = launch_here("--mode=export", f"--workdir={finished}", "--set=seed=2")
    assert done.returncode == 2 and "leave out --set" in done.stderr
    assert not (finished / "export").exists()
