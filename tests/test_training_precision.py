"""train.precision on the CPU: bfloat16 products are coarser, all that is kept is float32."""

import dataclasses

import jax
import numpy as np
import pytest

from flaxdigits.config import ModelConfig
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.program import Program
from flaxdigits.training.run import Run

pytest_plugins = ["tiny_run"]


def after_steps(config, dataset, *overrides):
    run = Run(apply_overrides(config, overrides), dataset)
    Program(run, 1)([run], [run.order(0)], [3])
    return jax.device_get(run.state)


def test_bfloat16_is_coarser_and_parameters_stay_float32(compiled_once, tiny_config, tiny_data):
    exact = after_steps(tiny_config, tiny_data, "model.batch_norm=true")
    coarse = after_steps(
        tiny_config, tiny_data, "model.batch_norm=true", "train.precision=bf16")
    assert {leaf.dtype for leaf in jax.tree.leaves((coarse.params, coarse.model_state))} == {
        np.dtype(np.float32)}
    kernels = [state.params["Dense_0"]["kernel"] for state in (exact, coarse)]
    difference = np.abs(kernels[0] - kernels[1]).max()
    assert 1e-6 < difference < 0.02


def test_tf32_changes_nothing_on_a_cpu(compiled_once, tiny_config, tiny_data):
    exact, other = (after_steps(tiny_config, tiny_data, f"train.precision={precision}")
                    for precision in ("fp32", "tf32"))
    for ours, theirs in zip(*map(jax.tree.leaves, (exact.params, other.params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_unknown_precision_names_the_choices(launch_here):
    done = launch_here("--experiment=mse_cnn", "--set", "train.precision=fp16")
    assert done.returncode == 2
    assert "train.precision" in done.stderr and "bf16" in done.stderr


@pytest.mark.parametrize("model", [
    ModelConfig("dense_cnn", filters=(2,), dense=(8,)),
    ModelConfig("mse_cnn", filters=(2, 2), dropout=(0.1,)),
    ModelConfig("kaggle_cnn", filters=(2, 2, 2, 2), dense=(4,), dropout=())])
def test_every_form_of_convolution_takes_bfloat16(compiled_once, tiny_config, tiny_data, model):
    config = dataclasses.replace(tiny_config, model=model)
    state = after_steps(config, tiny_data, "train.precision=bf16")
    assert np.isfinite(state.log_sums.loss)
