"""Every experiment's train steps lower for GPU and TPU, natively convolved there and not here."""

import re

import pytest
from traced_recipe import traced_steps

from flaxdigits.experiments import list_experiments
from flaxdigits.models.convolution import BATCH_PIECES

CONVOLUTIONS = {"chinese_cnn": 3, "mnist_cnn": 4, "mse_cnn": 2, "kaggle_cnn": 4, "dense_cnn": 1,
                "mnist_speedrun": 3}


def test_every_experiment_is_here():
    assert set(list_experiments()) == set(CONVOLUTIONS)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_train_steps_lower_for_every_platform(name, parallel):
    traced = traced_steps(name, parallel)
    convolutions = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text().count(
            "stablehlo.convolution")
        for platform in ("cpu", "cuda", "tpu")}
    # Forward, and back to the kernel and to the input, but for the first layer's: its input is
    # the images.
    native = 3 * CONVOLUTIONS[name] - 1
    # On the CPU they are products, but for kaggle_cnn's 5 x 5 on many channels: three, in parts.
    on_cpu = 3 * BATCH_PIECES if name == "kaggle_cnn" else 0
    assert convolutions == {"cpu": on_cpu, "cuda": native, "tpu": native}


@pytest.mark.parametrize("precision, words", [
    ("fp32", {"HIGHEST"}), ("tf32", {"HIGH"}), ("bf16", {"DEFAULT"})])
def test_products_are_as_precise_as_asked(precision, words):
    text = traced_steps("mnist_cnn", "jit", f"train.precision={precision}").lower(
        lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines()
                if "stablehlo.dot_general" in line or "stablehlo.convolution" in line]
    assert len(products) == 3 * (CONVOLUTIONS["mnist_cnn"] + 2) - 1
    assert {word for line in products for word in re.findall(
        r"\b(?:DEFAULT|HIGHEST|HIGH)\b", line) or ["DEFAULT"]} == words
    kinds = {kind for line in products for kind in re.findall(r"x(f32|bf16)>", line)}
    assert kinds == {"bf16" if precision == "bf16" else "f32"}
