"""train.precision on the CPU: bfloat16 products are coarser, all that is kept is float32."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced_recipe import traced_steps

from flaxdigits.config import ModelConfig
from flaxdigits.models.convolution import convolve
from flaxdigits.models.layers import Conv
from flaxdigits.models.products import multiply
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.program import StepRequest, TrainProgram

pytest_plugins = ["tiny_run"]


def after_steps(config, dataset, *overrides):
    experiment = Experiment.create(apply_overrides(config, overrides), dataset)
    state, order = experiment.initial_state(), experiment.epoch_indices(0)
    request = StepRequest(config.seed, 0, state, order, 3)
    program = TrainProgram(experiment, 1)
    state, _ = program.steps(*program.arguments([request], [3]))
    return jax.device_get(state)


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


@pytest.mark.parametrize(("precision", "words"), [
    ("bf16", "train.precision=bf16 on a CPU rounds to bfloat16 and multiplies in float32"),
    ("tf32", "train.precision=tf32 is the same as fp32 on a CPU"), ("fp32", None)])
def test_a_run_on_a_cpu_notes_what_its_precision_means(
    precision, words, compiled_once, train_tiny, tmp_path, caplog
):
    train_tiny(tmp_path / "run", f"train.precision={precision}", "train.stop_after=2")
    notes = [record.getMessage() for record in caplog.records
             if "train.precision" in record.getMessage()]
    assert len(notes) == (words is not None)
    assert all(note.startswith(words) for note in notes)


@pytest.mark.parametrize("name", ["chinese_cnn", "mnist_cnn", "kaggle_cnn"])
def test_no_convolution_or_product_of_bfloat16_is_left_on_a_cpu(name):
    """XLA's own are 80 times slower there than those of float32."""
    text = traced_steps(name, "jit", "train.precision=bf16").lower(
        lowering_platforms=("cpu",)).as_text()
    products = [line for line in text.splitlines()
                if "stablehlo.dot_general" in line or "stablehlo.convolution" in line]
    assert len(products) > 10
    assert not [line for line in products if "bf16" in line]


def test_a_bfloat16_product_is_the_rounded_product_of_its_operands():
    def normal(seed, *shape):
        return jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)

    for form, x, kernel in (
            (functools.partial(convolve, padding="SAME"), normal(0, 4, 6, 6, 4),
             normal(1, 3, 3, 4, 8)),
            (multiply, normal(2, 16, 40), normal(3, 40, 8))):
        found, exact = form(x, kernel), form(x.astype(jnp.float32), kernel.astype(jnp.float32))
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-8, atol=1e-5)


def test_gradients_of_biases_in_bfloat16_are_summed_in_float32():
    """In bfloat16, 1 + 1 + ... stays at 256."""
    x = jnp.ones((4, 32, 32, 1), jnp.bfloat16)
    layer = Conv(2, (1, 1))
    params = {"kernel": jnp.ones((1, 1, 1, 2), jnp.bfloat16), "bias": jnp.ones(2, jnp.bfloat16)}
    gradient = jax.jit(jax.grad(lambda params: layer.apply(
        {"params": params}, x).astype(jnp.float32).sum()))(params)
    np.testing.assert_array_equal(gradient["bias"].astype(jnp.float32), 4 * 32 * 32)


@pytest.mark.parametrize("model", [
    ModelConfig("dense_cnn", filters=(2,), dense=(8,)),
    ModelConfig("mse_cnn", filters=(2, 2), dropout=(0.1,)),
    ModelConfig("kaggle_cnn", filters=(2, 2, 2, 2), dense=(4,), dropout=())])
def test_every_form_of_convolution_takes_bfloat16(compiled_once, tiny_config, tiny_data, model):
    config = dataclasses.replace(tiny_config, model=model)
    state = after_steps(config, tiny_data, "train.precision=bf16")
    assert np.isfinite(state.log_sums.loss)
