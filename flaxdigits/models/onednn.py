"""Large convolutions and matrix products on CPUs by the oneDNN library in jaxlib.

The wheels of jaxlib for Linux on x86 contain oneDNN (github.com/uxlfoundation/oneDNN). Its
convolutions are as fast as large matrix products, but by default XLA does not use it. XLA has two
custom calls for it, which JAX's foreign function interface can call, too. They are not a public
interface: `_is_available` tests them once, and if they are missing, XLA's own operations are used.

A program that calls them cannot be written to the compilation cache. They are therefore used only
in train steps (`compile_with_onednn`), and only for large operations.
"""

import contextlib
import contextvars
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CUSTOM_CALL_PREFIX = "__onednn$"
# The largest size of the shifted copies in one product of the gradient of a kernel.
BLOCK_BYTES = 10_000_000
_allowed = contextvars.ContextVar("allowed", default=False)

Pads = Sequence[tuple[int, int]]


def may_use_onednn() -> bool:
    """Returns whether the current trace may call oneDNN.

    It may within `compile_with_onednn`, on a single CPU device whose jaxlib has the custom calls.
    """
    return _allowed.get() and _is_available()


def compile_with_onednn(lower: Callable[[], jax.stages.Lowered]) -> jax.stages.Compiled:
    """Lowers and compiles a program that may call oneDNN.

    Args:
      lower: a function that returns the lowered program, and traces functions that have not been
        traced before.
    """
    with _allow_onednn():
        lowered = lower()
    if CUSTOM_CALL_PREFIX not in lowered.as_text():
        return lowered.compile()
    with _without_compilation_cache():
        return lowered.compile()


@contextlib.contextmanager
def _allow_onednn() -> Iterator[None]:
    """Allows traces within the block to call oneDNN."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


@contextlib.contextmanager
def _without_compilation_cache() -> Iterator[None]:
    """Prevents programs that are compiled in the block from being written to the cache."""
    name = "jax_persistent_cache_min_compile_time_secs"
    previous = getattr(jax.config, name)
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, previous)


@functools.cache
def _is_available() -> bool:
    """Returns whether this jaxlib has the custom calls and their results are correct.

    They are not used on several devices, each of which would compute the whole operation. The
    result is cached for the process.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return False
    x = np.arange(2 * 4 * 4 * 8, dtype=np.float32).reshape(2, 4, 4, 8) % 7
    kernel = np.arange(3 * 3 * 8 * 8, dtype=np.float32).reshape(3, 3, 8, 8) % 5
    program = jax.jit(lambda x, kernel: (
        _convolve(x, kernel, [(1, 1)] * 2), _multiply(x.reshape(-1, 8), kernel[0, 0])))
    try:
        with _without_compilation_cache():
            found = program.lower(x, kernel).compile()(x, kernel)
    except jax.errors.JaxRuntimeError:  # "not implemented"
        return False
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    wanted = sum(padded[:, i:i + 4, j:j + 4] @ kernel[i, j] for i in range(3) for j in range(3))
    return (np.allclose(found[0], wanted, rtol=1e-5)
            and np.allclose(found[1], x.reshape(-1, 8) @ kernel[0, 0], rtol=1e-5))


@jax.custom_vjp
def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the matrix product: [n, in] float32 @ [in, out] float32 -> [n, out] float32."""
    return _multiply(a, b)


def _save_factors(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _multiply(a, b), (a, b)


def _multiply_back(
    factors: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    a, b = factors
    return _multiply(gradient, b, transposed="b"), _multiply(a, gradient, transposed="a")


multiply.defvjp(_save_factors, _multiply_back)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Returns a convolution with stride 1.

    Args:
      x: [batch, height, width, in] float32.
      kernel: [kernel height, kernel width, in, out] float32.
      padding: SAME or VALID.

    Returns:
      [batch, output height, output width, out] float32.
    """
    return _convolve(x, kernel, _pads(x, kernel, padding))


def _save_inputs(
    x: jax.Array, kernel: jax.Array, padding: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, _pads(x, kernel, padding)), (x, kernel)


def _convolve_back(
    padding: str, inputs: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    pads = _pads(x, kernel, padding)
    opposite = [(length - 1 - low, length - 1 - high)
                for length, (low, high) in zip(kernel.shape, pads, strict=False)]
    of_x = _convolve(gradient, jnp.flip(kernel, (0, 1)), opposite, input_axis=3, output_axis=2)
    return of_x, _kernel_gradient(x, gradient, kernel.shape, pads)


convolve.defvjp(_save_inputs, _convolve_back)


def _pads(x: jax.Array, kernel: jax.Array, padding: str) -> Pads:
    return lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (1, 1), padding)


def _kernel_gradient(
    x: jax.Array, gradient: jax.Array, shape: tuple[int, ...], pads: Pads
) -> jax.Array:
    """Returns the gradient of the kernel of `convolve`.

    The inputs, shifted by each offset of the kernel, are concatenated along the channels, and
    multiplied by the output gradients as matrices. Over the width the inputs are shifted; over the
    height either the inputs or the output gradients, whichever needs fewer copies. Each entry of
    the product is an entry of the gradient. The batch is processed in blocks of about
    `BLOCK_BYTES`, so that the copies stay in the CPU's cache.

    Args:
      x: [batch, height, width, in] float32.
      gradient: [batch, output height, output width, out] float32.
      shape: the shape of the kernel, [kernel height, kernel width, in, out].
      pads: the padding before and after the height and the width.

    Returns:
      [kernel height, kernel width, in, out] float32.
    """
    kernel_height, kernel_width, channels, features = shape
    shifts_inputs = kernel_height * kernel_width * channels + features < (
        kernel_width * channels + kernel_height * features)
    input_shifts, output_shifts = (kernel_height, 1) if shifts_inputs else (1, kernel_height)
    input_features, output_features = (
        input_shifts * kernel_width * channels, output_shifts * features)
    height, width = gradient.shape[1] + output_shifts - 1, gradient.shape[2]
    example_bytes = 4 * height * width * (input_features + output_features)
    block = _block_length(x.shape[0], BLOCK_BYTES // example_bytes)

    def add(total: jax.Array, parts: list[jax.Array]) -> tuple[jax.Array, None]:
        x, gradient = parts
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        inputs = jnp.concatenate(
            [x[:, i:i + height, j:j + width]
             for i in range(input_shifts) for j in range(kernel_width)], axis=-1)
        outputs = jnp.concatenate(
            [jnp.pad(gradient, ((0, 0), (i, output_shifts - 1 - i), (0, 0), (0, 0)))
             for i in range(output_shifts)], axis=-1)
        return total + _multiply(
            inputs.reshape(-1, input_features), outputs.reshape(-1, output_features),
            transposed="a"), None

    parts = [array.reshape(-1, block, *array.shape[1:]) for array in (x, gradient)]
    total, _ = lax.scan(add, jnp.zeros((input_features, output_features)), parts)
    return total.reshape(
        input_shifts, kernel_width, channels, output_shifts, features).transpose(
        0, 3, 1, 2, 4).reshape(shape)


def _block_length(batch: int, most: int) -> int:
    """Returns the largest divisor of the batch size that is at most `most`."""
    return next(length for length in range(max(1, min(most, batch)), 0, -1) if batch % length == 0)


def _multiply(a: jax.Array, b: jax.Array, transposed: str = "") -> jax.Array:
    """Returns the product of two matrices.

    Args:
      a: a matrix, float32.
      b: a matrix, float32.
      transposed: the name of the factor that is transposed, `a` or `b`; empty for none.
    """
    rows, columns = a.shape[int(transposed == "a")], b.shape[int(transposed != "b")]
    config = {"transpose_a": transposed == "a", "transpose_b": transposed == "b"}
    return _call("matmul", {"onednn_matmul_config": config}, (rows, columns), a, b)


def _convolve(
    x: jax.Array, kernel: jax.Array, pads: Pads, input_axis: int = 2, output_axis: int = 3
) -> jax.Array:
    """Returns a convolution with stride 1.

    Args:
      x: [batch, height, width, channels] float32.
      kernel: a float32 kernel whose first two axes are the height and width.
      pads: the padding before and after the height and the width.
      input_axis: the axis of the input channels in the kernel.
      output_axis: the axis of the output channels in the kernel.
    """
    space = [length + sum(pad) - size + 1
             for length, pad, size in zip(x.shape[1:3], pads, kernel.shape, strict=False)]
    images = {"data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}
    config = {
        "dims": 4, "feature_groups": 1, "input": images, "output": images,
        "kernel": {"filter": {"input_feature_dim": input_axis, "output_feature_dim": output_axis,
                              "spatial_dims": [0, 1]}},
        "window": {"pad_left": [low for low, _ in pads], "pad_right": [high for _, high in pads],
                   "strides": [1, 1], "window_dilations": [1, 1]}}
    return _call("convolution", {"onednn_conv_config": config},
                 (x.shape[0], *space, kernel.shape[output_axis]), x, kernel)


def _call(
    name: str, config: Mapping[str, Any], shape: tuple[int, ...], *operands: jax.Array
) -> jax.Array:
    """Calls oneDNN's `matmul` or `convolution` on float32 arrays; returns `shape` float32."""
    return jax.ffi.ffi_call(
        CUSTOM_CALL_PREFIX + name, jax.ShapeDtypeStruct(shape, jnp.float32),
        vmap_method="sequential", custom_call_api_version=2,
        legacy_backend_config=json.dumps(config))(*operands)
