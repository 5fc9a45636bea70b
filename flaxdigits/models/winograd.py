"""Convolutions with fewer multiplications, by Winograd's minimal filtering, for CPUs.

A tile of m x n outputs of a k x l kernel takes (m + k - 1)(n + l - 1) products of channels instead
of m n k l (Winograd 1980; for networks: Lavin and Gray 2016, arXiv 1509.09308): 2.25 times fewer
for 2 x 2 outputs of a 3 x 3 kernel. All three transforms are linear, so automatic
differentiation gives a gradient with the same saving.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# The points at which the polynomials of Toom and Cook are evaluated, in addition to infinity. In
# this order the factors are small, and so are the rounding errors: about 2e-7 of the largest output
# for k = 3, and 1e-6 for k = 5.
POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))


class Filtering(NamedTuple):
    """The matrices of one axis, such that outputs = A ((G kernel) * (B inputs)).

    Attributes:
      inputs: B, [m + k - 1, m + k - 1].
      kernel: G, [m + k - 1, k].
      outputs: A, [m, m + k - 1].
    """

    inputs: np.ndarray
    kernel: np.ndarray
    outputs: np.ndarray


@functools.cache
def minimal_filtering(outputs: int, size: int) -> Filtering:
    """Returns the matrices of Toom and Cook for `outputs` values of a filter with `size` taps."""
    points = POINTS[:outputs + size - 2]
    inputs, kernel = [], []
    for point in points:
        others = [other for other in points if other != point]
        divisor = math.prod((point - other for other in others), start=Fraction(1))
        inputs.append([*_polynomial(others), 0])
        kernel.append([point**power / divisor for power in range(size)])
    inputs.append(_polynomial(points))
    kernel.append([int(power == size - 1) for power in range(size)])
    values = [[*(point**power for point in points), int(power == outputs - 1)]
              for power in range(outputs)]
    return Filtering(*(np.array(matrix, np.float32) for matrix in (inputs, kernel, values)))


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Returns the coefficients of the product of (x - root), in order of ascending powers."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [a - root * b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def tile_length(length: int, size: int) -> int:
    """Returns the tile length with which an axis of `length` outputs needs the fewest products.

    It is at most `size` + 1, since the rounding errors grow with it, and at most the length for
    which there are enough `POINTS`.
    """
    lengths = range(1, min(size + 1, len(POINTS) + 2 - size) + 1)
    return min(lengths, key=lambda tile: -(-length // tile) * (tile + size - 1))


class Tiling(NamedTuple):
    """The division of the outputs along an axis into tiles.

    Attributes:
      outputs: the number of outputs.
      before: the number of zeros before the inputs.
      tile: the number of outputs of a tile.
      count: the number of tiles; the last one may extend beyond the outputs.
    """

    outputs: int
    before: int
    tile: int
    count: int  # pyright: ignore[reportIncompatibleMethodOverride] - hides tuple.count


def tilings(space: Sequence[int], kernel: Sequence[int], padding: str) -> list[Tiling]:
    """Returns the tilings of both axes, for images and kernels of the given height and width."""
    pads = lax.padtype_to_pads(space, kernel, (1, 1), padding)
    axes = []
    for length, (low, high), size in zip(space, pads, kernel, strict=True):
        outputs = length + low + high - size + 1
        tile = tile_length(outputs, size)
        axes.append(Tiling(outputs, low, tile, -(-outputs // tile)))
    return axes


def products_size(images: tuple[int, ...], kernel: tuple[int, ...], padding: str) -> int:
    """Returns the number of products that `convolve_winograd` sums, for arrays of these shapes."""
    axes = tilings(images[1:3], kernel[:2], padding)
    return images[0] * kernel[3] * math.prod(
        (axis.tile + size - 1) * axis.count for axis, size in zip(axes, kernel[:2], strict=True))


def convolve_winograd(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Returns a convolution with stride 1.

    Args:
      x: [batch, height, width, in] float32.
      kernel: [k, l, in, out] float32, k and l at most 6.
      padding: SAME or VALID.

    Returns:
      [batch, height', width', out] float32; exactly zero where all inputs of an output are zero.
    """
    images, sizes, (batch, *space, channels) = x, kernel.shape[:2], x.shape
    axes = tilings(space, sizes, padding)
    (m, n), (rows, columns) = (axis.tile for axis in axes), (axis.count for axis in axes)
    more = -(-(sizes[0] - 1) // m), -(-(sizes[1] - 1) // n)  # inputs of the last tiles, in tiles
    whole = (rows + more[0]) * m, (columns + more[1]) * n
    x = jnp.pad(x, ((0, 0), *((axis.before, length - width - axis.before) for axis, length, width
                              in zip(axes, whole, space, strict=True)), (0, 0)))
    # Splits are used, since the gradient of a strided slice would be a sum of mostly zeros.
    blocks = x.reshape(batch, rows + more[0], m, columns + more[1], n, channels)
    offsets = [lax.split(line, [1] * n, axis=4) for line in lax.split(blocks, [1] * m, axis=2)]
    parts = jnp.stack([
        offsets[i % m][j % n][:, i // m:i // m + rows, :, j // n:j // n + columns].reshape(-1)
        for i in range(m + sizes[0] - 1) for j in range(n + sizes[1] - 1)])
    down, across = minimal_filtering(m, sizes[0]), minimal_filtering(n, sizes[1])
    # Matrix products are used, since XLA would recompute sums wherever they are used.
    inputs = np.kron(down.inputs, across.inputs) @ parts
    kernels = np.kron(down.kernel, across.kernel) @ kernel.reshape(math.prod(sizes), -1)
    products = jnp.einsum(
        "pti,pio->pto", inputs.reshape(len(inputs), -1, channels),
        kernels.reshape(len(inputs), channels, -1))
    tiles = np.kron(down.outputs, across.outputs) @ products.reshape(len(inputs), -1)
    tiles = tiles.reshape(m, n, batch, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
    y = tiles.reshape(batch, rows * m, columns * n, -1)[:, :axes[0].outputs, :axes[1].outputs]
    # Where all inputs are zero, the products may not cancel exactly, and the sign of the rounding
    # error would decide whether ReLU passes the gradient. The error is subtracted instead of being
    # replaced by zero, so the gradients remain those of the convolution.
    return y - lax.stop_gradient(jnp.where(_is_blank(images, sizes, padding), y, 0))


def _is_blank(x: jax.Array, sizes: Sequence[int], padding: str) -> jax.Array:
    """Returns where all inputs of an output are zero: [batch, height', width', 1] bool."""
    # Uses the bits without the sign, which is five times as fast on a CPU as (x != 0).any().
    bits = lax.bitcast_convert_type(x, jnp.uint32) << 1
    ink = lax.reduce_or(bits, axes=(3,))[..., None] != 0
    pads = lax.padtype_to_pads(x.shape[1:3], sizes, (1, 1), padding)
    ink = jnp.pad(ink, ((0, 0), *pads, (0, 0)))
    for axis, size in zip((1, 2), sizes, strict=True):
        length = ink.shape[axis] - size + 1
        ink = functools.reduce(
            jnp.logical_or,
            [lax.slice_in_dim(ink, start, start + length, axis=axis) for start in range(size)])
    return ~ink
