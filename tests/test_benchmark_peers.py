"""The peers train the experiments' own networks with their own optimizers, and are timed with ours.

They need the extra [bench]: `pytest -m peers`.
"""

import functools
import json
import re
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import optax
import pytest
from conftest import ROOT

import flaxdigits
from flaxdigits.api import benchmark, gpu_suite
from flaxdigits.api.benchmark import PUBLISHED
from flaxdigits.benchmark.compare import compare
from flaxdigits.benchmark.peers import PEERS
from flaxdigits.data.preprocessing import preprocess
from flaxdigits.experiments import load_experiment
from flaxdigits.models import build_model
from flaxdigits.training.state import init_variables

pytestmark = pytest.mark.peers


def ours(name: str) -> dict[str, np.ndarray]:
    """Weights, images and gradients for the peers, and what we make of them."""
    config = load_experiment(name)
    size, classes = (64, 15) if name == "chinese_cnn" else (28, 10)
    model = build_model(config.model, classes)
    variables = init_variables(model, 0, (size, size, 1))
    rng = np.random.default_rng(0)
    inputs = np.asarray(preprocess(rng.integers(0, 256, (4, size, size, 1), np.uint8), "unit"))
    outputs = model.apply(variables, inputs)
    if name == "mse_cnn":  # Keras has the softmax in the network
        outputs = jax.nn.softmax(outputs)
    layers = [layer for _, layer in sorted(variables["params"].items())]  # Conv_0 .. Dense_0 ..
    optimizer = config.optimizer.create(
        config.optimizer.schedule.build(config.optimizer.learning_rate, 1000, 1000))
    params: Any = np.zeros(100, np.float32)
    state, gradients = optimizer.init(params), rng.normal(size=(5, 100)).astype(np.float32)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return {
        "inputs": inputs, "outputs": np.asarray(outputs), "gradients": gradients,
        "params": np.asarray(params)} | {
        f"{what}_{i}": np.asarray(layer[what])
        for i, layer in enumerate(layers) for what in ("kernel", "bias")}


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory, environment):
    """A folder with what each side makes of the five networks."""
    folder = tmp_path_factory.mktemp("exchanged")
    for name in PUBLISHED:
        np.savez(folder / f"{name}_ours.npz", **ours(name))
    for peer in PEERS:
        subprocess.run([sys.executable, str(ROOT / "tests" / "peer_side.py"), peer, str(folder)],
                       check=True, env=environment | {"PYTHONPATH": str(ROOT)}, cwd=ROOT)
    return folder


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_peer_has_our_network_and_optimizer(name, peer, exchanged):
    with (np.load(exchanged / f"{name}_ours.npz") as ours,
          np.load(exchanged / f"{name}_{peer}.npz") as theirs):
        outputs, params = theirs["outputs"], theirs["params"]
        if (name, peer) == ("mse_cnn", "torch"):
            outputs = np.asarray(jax.nn.softmax(outputs))
        np.testing.assert_allclose(outputs, ours["outputs"], rtol=1e-4, atol=1e-5)
        # Where epsilon stands is each framework's own.
        np.testing.assert_allclose(params, ours["params"], rtol=1e-3,
                                   atol=1e-3 * np.abs(ours["params"]).max())


def test_ratios_are_printed_and_follow_from_the_timings(environment, monkeypatch, tmp_path, capsys):
    for variable in ("TFDS_DATA_DIR", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.setenv(variable, environment[variable])
    monkeypatch.setattr(
        benchmark, "compare", functools.partial(compare, rounds=3, seconds=0.2))
    flaxdigits.run_benchmark("mse_cnn", workdir=tmp_path, peers=True, data="synthetic")
    assert re.search(r"^mse_cnn ratio keras \d+\.\d\d ratio torch \d+\.\d\d$",
                     capsys.readouterr().out, re.MULTILINE)
    found = json.loads((tmp_path / "benchmark.json").read_text())["experiments"]["mse_cnn"]
    medians = {label: sorted(timings["milliseconds"])[1]
               for label, timings in found["timings"].items()}
    assert found["ratios"] == {
        peer: pytest.approx(medians[peer] / medians["ours"]) for peer in ("keras", "torch")}
    assert found["timings"]["keras"]["version"].startswith("Keras")
    assert found["timings"]["torch"]["version"].startswith("PyTorch")


def test_the_gpu_suite_compares_every_precision_with_torch(
    environment, monkeypatch, tmp_path, capsys
):
    for variable in ("TFDS_DATA_DIR", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.setenv(variable, environment[variable])
    monkeypatch.setattr(gpu_suite, "ROUNDS", 3)
    monkeypatch.setattr(gpu_suite, "SECONDS", 0.1)
    flaxdigits.run_benchmark(
        "mse_cnn", workdir=tmp_path, peers=True, suite="gpu", data="synthetic")
    assert "10 seeds at the same time take" in capsys.readouterr().out
    found = json.loads((tmp_path / "benchmark.json").read_text())["experiments"]["mse_cnn"]
    timings = found["timings"]
    assert found["ratios"] == {
        precision: pytest.approx(timings[f"PyTorch {precision}"]["median"]
                                 / timings[f"flaxdigits {precision}"]["median"])
        for precision in gpu_suite.PRECISIONS}
    assert timings["PyTorch bf16"]["version"].startswith("PyTorch")
    assert timings["PyTorch bf16"]["variant"].split()[0] in ("contiguous", "channels_last")
