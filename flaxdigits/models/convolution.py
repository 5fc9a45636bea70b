"""Convolutions of stride 1, in the form that is fastest on the device.

On CPUs XLA computes a convolution's gradients through a slow path, and inside a loop (as train
steps are) also some of its forward passes. There one of these forms is used, the fastest measured
on two cores:

- In train steps, where Winograd's products would not fit in the cache: oneDNN (`models/onednn.py`).
- One channel: a product of patches with the kernel as a matrix. The sums are too short for the
  other forms to be faster.
- Kernels up to 4 x 4: Winograd's minimal filtering, which makes whole train steps 1.6 times as
  fast.
- Larger kernels: XLA's forward pass, in parts of the batch, and gradients written as forward
  passes. The cost and the rounding of Winograd's transforms grow with the kernel.

The operands of each form are float32; those in bfloat16 are converted, which is exact, and the
outputs are rounded to bfloat16.

On GPUs and TPUs it is XLA's convolution. The choice is made when a program is lowered.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from flaxdigits.models import onednn
from flaxdigits.models.winograd import convolve_winograd, products_size

PARTS = 4  # of a batch that is convolved by XLA on the CPU
CACHE_BYTES = 64_000_000  # that a CPU's caches hold at most


def convolve(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Returns `lax.conv_general_dilated` of stride 1.

    Args:
      x: [batch, height, width, in] float32 or bfloat16.
      kernel: [k, l, in, out], of the same dtype.
      padding: SAME or VALID.

    Returns:
      [batch, height', width', out], of the same dtype.
    """
    return lax.platform_dependent(
        x, kernel,
        cpu=functools.partial(_convolve_on_cpu, padding=padding),
        default=functools.partial(convolve_native, padding=padding))


def _convolve_on_cpu(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolves in float32: on a CPU, XLA's own bfloat16 convolutions are 80 times slower."""
    height, width, channels, _ = kernel.shape
    if onednn.is_offered() and 4 * products_size(x.shape, kernel.shape, padding) > CACHE_BYTES:
        form = onednn.convolve
    elif channels == 1 or height == width == 1:
        form = _convolve_patches
    elif max(height, width) <= 4:
        form = convolve_winograd
    else:
        form = _convolve_forward
    return form(x.astype(jnp.float32), kernel.astype(jnp.float32), padding).astype(x.dtype)


def convolve_native(
    x: jax.Array, kernel: jax.Array, padding: str | list[tuple[int, int]]
) -> jax.Array:
    """Returns `convolve` as XLA's own operation, on any device."""
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


def _in_parts(batch: int) -> int:
    """Returns the number of parts of the batch: several convolutions at once use a CPU better.

    A batch whose size is not known, or not divisible, is not split.
    """
    return PARTS if isinstance(batch, int) and batch % PARTS == 0 else 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_forward(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    return _convolve_parts(x, kernel, padding)


def _convolve_parts(
    x: jax.Array, kernel: jax.Array, padding: str | list[tuple[int, int]]
) -> jax.Array:
    return jnp.concatenate([
        convolve_native(part, kernel, padding) for part in jnp.split(x, _in_parts(x.shape[0]))])


def _save_inputs(
    x: jax.Array, kernel: jax.Array, padding: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve_parts(x, kernel, padding), (x, kernel)


def _convolve_back(
    padding: str, inputs: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of input and kernel, both as forward convolutions.

    That of the input convolves with the flipped kernel, that of the kernel takes the batch as
    channels. The barriers keep XLA from folding the transposes back into the slow forms.
    """
    x, kernel = inputs
    size = kernel.shape[:2]
    pads = lax.padtype_to_pads(x.shape[1:3], size, (1, 1), padding)
    turned = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2))
    opposite = [(length - 1 - low, length - 1 - high)
                for length, (low, high) in zip(size, pads, strict=True)]

    def of_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
        rows, weights = lax.optimization_barrier(
            (x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)))
        return convolve_native(rows, weights, pads).transpose(1, 2, 0, 3)

    parts = _in_parts(len(x))
    kernels = map(of_kernel, jnp.split(x, parts), jnp.split(gradient, parts))
    return _convolve_parts(gradient, turned, opposite), sum(kernels)


_convolve_forward.defvjp(_save_inputs, _convolve_back)
