"""Every experiment's train steps lower for GPU and TPU, natively convolved there and not here."""

import pytest
from traced_recipe import traced_steps

from flaxdigits.experiments import list_experiments
from flaxdigits.models.convolution import PARTS

CONVOLUTIONS = {"chinese_cnn": 3, "mnist_cnn": 4, "mse_cnn": 2, "kaggle_cnn": 4, "dense_cnn": 1}


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
    on_cpu = 3 * PARTS if name == "kaggle_cnn" else 0
    assert convolutions == {"cpu": on_cpu, "cuda": native, "tpu": native}
