"""Convolutions with stride 1, by the implementation that is fastest on the device.

On CPUs XLA computes the gradients of convolutions by a slow path, and inside of a loop, such as the
loop over train steps, some of the forward passes too. One of these implementations is used instead;
they were the fastest on two cores:

- In train steps, if the products of Winograd's method would not fit in the cache: oneDNN
  (`models/onednn.py`).
- One channel: the matrix product of image patches and the kernel. The sums are so short that the
  other implementations are not faster.
- Kernels up to 4 x 4: Winograd's minimal filtering, which makes whole train steps 1.6 times as
  fast.
- Larger kernels: XLA's forward pass on pieces of the batch, and gradients that are computed as
  forward passes. The cost and the rounding errors of Winograd's method grow with the kernel.

All implementations compute in float32: bfloat16 operands are converted, which is exact, and the
outputs are rounded to bfloat16.

On GPUs and TPUs XLA's convolution is used. The implementation is selected when a program is
lowered.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax

from flaxdigits.models import onednn
from flaxdigits.models.winograd import convolve_winograd, products_size

BATCH_PIECES = 4  # pieces into which a batch is split for XLA's convolution on a CPU
CACHE_BYTES = 64_000_000  # the assumed size of the caches of a CPU


def convolve(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Returns the convolution with stride 1: `lax.conv_general_dilated` except for rounding.

    Args:
      x: [batch, height, width, in] float32 or bfloat16.
      kernel: [kernel height, kernel width, in, out], of the same dtype.
      padding: SAME or VALID.

    Returns:
      [batch, output height, output width, out], of the same dtype.
    """
    return lax.platform_dependent(
        x, kernel,
        cpu=functools.partial(_convolve_on_cpu, padding=padding),
        default=functools.partial(convolve_native, padding=padding))


def _convolve_on_cpu(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolves in float32; on a CPU, XLA's own bfloat16 convolutions are 80 times slower."""
    height, width, channels, _ = kernel.shape
    if onednn.may_use_onednn() and 4 * products_size(x.shape, kernel.shape, padding) > CACHE_BYTES:
        implementation = onednn.convolve
    elif channels == 1 or height == width == 1:
        implementation = _convolve_patches
    elif max(height, width) <= 4:
        implementation = convolve_winograd
    else:
        implementation = _convolve_forward
    y = cast(jax.Array, implementation(  # `custom_vjp` with arguments has no return type
        x.astype(jnp.float32), kernel.astype(jnp.float32), padding))
    return y.astype(x.dtype)


def convolve_native(
    x: jax.Array, kernel: jax.Array, padding: str | list[tuple[int, int]]
) -> jax.Array:
    """Returns the convolution with stride 1 by XLA's own operation, on any device."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _convolve_patches(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    height, width, channels, features = kernel.shape
    pads = lax.padtype_to_pads(x.shape[1:3], (height, width), (1, 1), padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    patches = jnp.concatenate(
        [x[:, i:i + rows, j:j + columns] for i in range(height) for j in range(width)], axis=-1)
    return patches @ kernel.reshape(height * width * channels, features)


def _piece_count(batch: int) -> int:
    """Returns the number of pieces of a batch: several parallel convolutions use a CPU better.

    A batch is not split if its size is unknown or not divisible.
    """
    return BATCH_PIECES if isinstance(batch, int) and batch % BATCH_PIECES == 0 else 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_forward(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    return _convolve_pieces(x, kernel, padding)


def _convolve_pieces(
    x: jax.Array, kernel: jax.Array, padding: str | list[tuple[int, int]]
) -> jax.Array:
    pieces = jnp.split(x, _piece_count(x.shape[0]))
    return jnp.concatenate([convolve_native(piece, kernel, padding) for piece in pieces])


def _save_inputs(
    x: jax.Array, kernel: jax.Array, padding: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve_pieces(x, kernel, padding), (x, kernel)


def _convolve_back(
    padding: str, inputs: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of input and kernel, both computed as forward convolutions.

    The gradient of the input is a convolution with the flipped kernel. The gradient of the kernel
    is a convolution whose channels are the examples of the batch. The barriers prevent XLA from
    rewriting the transposes to the slow operations.
    """
    x, kernel = inputs
    size = kernel.shape[:2]
    pads = lax.padtype_to_pads(x.shape[1:3], size, (1, 1), padding)
    flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2))
    opposite = [(length - 1 - low, length - 1 - high)
                for length, (low, high) in zip(size, pads, strict=True)]

    def of_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
        rows, weights = lax.optimization_barrier(
            (x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)))
        return convolve_native(rows, weights, pads).transpose(1, 2, 0, 3)

    pieces = _piece_count(len(x))
    kernels = map(of_kernel, jnp.split(x, pieces), jnp.split(gradient, pieces))
    return _convolve_pieces(gradient, flipped, opposite), cast(jax.Array, sum(kernels))


_convolve_forward.defvjp(_save_inputs, _convolve_back)
