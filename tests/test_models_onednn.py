"""oneDNN's convolutions and products: those of linen, taken where they are offered alone."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from flaxdigits.models import onednn
from flaxdigits.models.convolution import convolve
from flaxdigits.models.layers import Dense

PREFIX = onednn.CUSTOM_CALL_PREFIX


@pytest.fixture(autouse=True)
def is_there():
    with onednn._allow_onednn():
        if not onednn.may_use_onednn():
            pytest.skip("this jaxlib has no oneDNN, or there is more than one device")


def close(found, wanted):
    scale = float(jnp.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * max(scale, 1e-3))


def native(x, kernel, padding):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest")


@settings(deadline=None, max_examples=15)
@given(batch=st.integers(1, 6), height=st.integers(5, 12), width=st.integers(5, 12),
       rows=st.integers(1, 5), columns=st.integers(1, 5), channels=st.sampled_from([1, 2, 3, 8]),
       features=st.sampled_from([1, 3, 8, 16]), padding=st.sampled_from(["SAME", "VALID"]),
       block=st.sampled_from([1, 3000, 10**7]))
def test_convolutions_and_gradients_equal_those_of_linen(
    batch, height, width, rows, columns, channels, features, padding, block
):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, height, width, channels)).astype(np.float32)
    kernel = rng.normal(size=(rows, columns, channels, features)).astype(np.float32)
    wanted, back = jax.vjp(lambda x, kernel: native(x, kernel, padding), x, kernel)
    gradient = rng.normal(size=wanted.shape).astype(np.float32)
    usual, onednn.BLOCK_BYTES = onednn.BLOCK_BYTES, block
    try:
        with onednn._without_compilation_cache():
            found, gradients = jax.jit(lambda x, kernel, gradient: (
                lambda y, back: (y, back(gradient)))(*jax.vjp(
                    lambda x, kernel: onednn.convolve(x, kernel, padding), x, kernel))
            )(x, kernel, gradient)
    finally:
        onednn.BLOCK_BYTES = usual
    close(found, wanted)
    for one, other in zip(gradients, back(gradient), strict=True):
        close(one, other)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 33, 5), (64, 100, 48)])
def test_products_and_gradients_equal_those_of_numpy(shape):
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    a = rng.normal(size=(rows, inner)).astype(np.float32)
    b = rng.normal(size=(inner, columns)).astype(np.float32)
    gradient = rng.normal(size=(rows, columns)).astype(np.float32)
    with onednn._without_compilation_cache():
        found, back = jax.vjp(onednn.multiply, a, b)
        of_a, of_b = back(gradient)
    close(found, a @ b)
    close(of_a, gradient @ b.T)
    close(of_b, a.T @ gradient)


def test_several_seeds_at_once_are_as_one_after_the_other():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 6, 6, 4)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4, 8)).astype(np.float32)
    with onednn._without_compilation_cache():
        together = jax.vmap(lambda x, kernel: onednn.convolve(x, kernel, "SAME"))(x, kernel)
        for place in range(3):
            close(together[place], native(x[place], kernel[place], "SAME"))


def test_only_large_operations_use_onednn_and_only_where_allowed():
    large, small = jnp.zeros((256, 28, 28, 32)), jnp.zeros((8, 28, 28, 32))
    kernel = jnp.zeros((5, 5, 32, 32))
    steps = jax.jit(lambda x: convolve(x, kernel, "SAME"))
    assert PREFIX not in steps.lower(large).as_text()
    with onednn._allow_onednn():
        assert PREFIX in jax.jit(lambda x: convolve(x, kernel, "SAME")).lower(large).as_text()
        assert PREFIX not in jax.jit(lambda x: convolve(x, kernel, "SAME")).lower(small).as_text()
        half = large.astype(jnp.bfloat16)  # multiplied in float32
        assert PREFIX in jax.jit(
            lambda x: convolve(x, kernel.astype(x.dtype), "SAME")).lower(half).as_text()
        dense = Dense(8192)
        for batch, is_large in ((512, True), (32, False)):
            x = jax.ShapeDtypeStruct((batch, 3136), jnp.float32)
            variables = jax.eval_shape(dense.init, jax.random.key(0), x)
            text = jax.jit(lambda variables, x: dense.apply(variables, x)).lower(
                variables, x).as_text()
            assert (PREFIX in text) == is_large


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_devices_do_not_call_it(platform):
    x, kernel = jnp.zeros((256, 28, 28, 32)), jnp.zeros((5, 5, 32, 32))
    with onednn._allow_onednn():
        lowered = jax.jit(lambda x, kernel: convolve(x, kernel, "SAME")).trace(x, kernel).lower(
            lowering_platforms=(platform,))
    assert PREFIX not in lowered.as_text()


def test_programs_that_call_it_are_not_kept(environment, tmp_path):
    """Writing them to the cache fails in jaxlib; others are kept."""
    code = """
import jax, jax.numpy as jnp
from flaxdigits.models.onednn import CUSTOM_CALL_PREFIX, compile_with_onednn
from flaxdigits.models.products import multiply
for rows in (1, 4096):
    a, b = jnp.ones((rows, 1024)), jnp.ones((1024, 1024))
    program = compile_with_onednn(lambda: jax.jit(multiply).lower(a, b))
    print((CUSTOM_CALL_PREFIX in program.as_text()), float(program(a, b).max()))
"""
    environment = environment | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    completed = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment,
                               capture_output=True, text=True, check=False)
    assert completed.stdout.split("\n")[:2] == ["False 1024.0", "True 1024.0"], completed.stderr
    kept = [path.name for path in tmp_path.iterdir() if "multiply" in path.name]
    assert len({name.rsplit("-", 2)[0] for name in kept}) == 1 and len(kept) <= 2, kept
