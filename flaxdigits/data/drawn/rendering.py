"""Renders pen paths as images, without computing the distance of every pixel to every stroke.

The paths are added as weights to a fine grid, which is blurred and sampled at the pixels, first
horizontally and then vertically. All values are float64 and are summed in a fixed order, so an
image does not depend on the other images of the batch.
"""

import numpy as np

GRID_PER_PIXEL = 2
TAIL = 4  # standard deviations at which the profile of a line ends


def blurred_line(
    paths: list[np.ndarray], pressures: list[np.ndarray], sigma: np.ndarray, size: int
) -> np.ndarray:
    """Draws pen paths as Gaussian lines.

    Args:
        paths: one [n, points] complex128 array per stroke, in pixels; pixel centers are integers.
        pressures: one [n, points] or broadcastable array per stroke, the strength of the line.
        sigma: [n] float64, the standard deviation of the profile of the line in pixels.
        size: the height and width of the images.

    Returns:
        [n, size, size] float64; 1 in the middle of a long straight line of pressure 1.
    """
    n = len(sigma)
    # A segment between two points is represented by its middle, with its length as the weight.
    middles = np.concatenate([(path[:, 1:] + path[:, :-1]) / 2 for path in paths], axis=1)
    lengths = np.concatenate(
        [
            np.abs(np.diff(path, axis=1)) * (pressure[:, 1:] + pressure[:, :-1]) / 2
            for path, pressure in zip(paths, pressures, strict=True)
        ],
        axis=1,
    )
    # The margin is as wide as the profile of the widest line, so that lines may leave the image.
    margin = int(np.ceil(TAIL * sigma.max() * GRID_PER_PIXEL))
    grid = size * GRID_PER_PIXEL + 2 * margin
    x = np.clip(middles.real * GRID_PER_PIXEL + margin, 0, grid - 1.001)
    y = np.clip(middles.imag * GRID_PER_PIXEL + margin, 0, grid - 1.001)
    column, row = x.astype(np.int64), y.astype(np.int64)
    x -= column
    y -= row
    corner = (np.arange(n)[:, None] * grid + row) * grid + column
    cells = np.zeros(n * grid * grid)
    for right in (0, 1):
        for down in (0, 1):
            share = lengths * (x if right else 1 - x) * (y if down else 1 - y)
            index = corner + down * grid + right
            cells += np.bincount(index.ravel(), share.ravel(), len(cells))
    across = sample_blurred(cells.reshape(n, grid, grid).transpose(0, 2, 1), sigma, margin, size)
    blurred = sample_blurred(across.transpose(0, 2, 1), sigma, margin, size)
    return blurred / (np.sqrt(2 * np.pi) * sigma[:, None, None])


def sample_blurred(cells: np.ndarray, sigma: np.ndarray, margin: int, size: int) -> np.ndarray:
    """Blurs a grid along its second axis, and samples it at the pixels along this axis.

    Args:
        cells: [n, grid, width] float64; the first pixel is `margin` cells from the edge.
        sigma: [n] float64, the standard deviation in pixels of a Gaussian of height 1.
        margin: the radius of the Gaussian in cells.
        size: the number of pixels.

    Returns:
        [n, size, width] float64.
    """
    blurred = np.zeros((len(cells), size, cells.shape[2]))
    for cell in range(-margin, margin + 1):
        distance = abs(cell) / GRID_PER_PIXEL / sigma
        weight = np.where(distance <= TAIL, np.exp(-0.5 * distance**2), 0)
        at_pixels = cells[:, margin + cell:][:, :size * GRID_PER_PIXEL:GRID_PER_PIXEL]
        blurred += weight[:, None, None] * at_pixels
    return blurred


def thick_pen(line: np.ndarray, sigma: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Converts Gaussian lines to ink with sharp edges, which are anti-aliased over one pixel.

    The distance from the line is computed from its Gaussian profile, so crossings and narrow
    gaps are filled with ink as on paper.

    Args:
        line: [n, size, size] float64, the output of `blurred_line`.
        sigma: [n] float64, the standard deviation of the profile in pixels.
        radius: [n] float64, half the width of the pen in pixels.

    Returns:
        [n, size, size] float64 in [0, 1].
    """
    distance = sigma[:, None, None] * np.sqrt(-2 * np.log(np.clip(line, 1e-30, 1)))
    return np.clip(radius[:, None, None] - distance + 0.5, 0, 1)


# The luminance table of the JPEG standard (ITU-T T.81, table K.1), scaled by the reference library
# for quality 75. The real Chinese MNIST files contain this table.
JPEG_TABLE = np.array([
    [8, 6, 5, 8, 12, 20, 26, 31],
    [6, 6, 7, 10, 13, 29, 30, 28],
    [7, 7, 8, 12, 20, 29, 35, 28],
    [7, 9, 11, 15, 26, 44, 40, 31],
    [9, 11, 19, 28, 34, 55, 52, 39],
    [12, 18, 28, 32, 41, 52, 57, 46],
    [25, 32, 39, 44, 52, 61, 60, 51],
    [36, 46, 48, 49, 56, 50, 52, 50],
])


def jpeg_rounded(images: np.ndarray) -> np.ndarray:
    """Returns the images after JPEG compression at quality 75.

    Args:
        images: [n, height, width] float64, 0 to 255; the sides are multiples of 8.

    Returns:
        [n, height, width] uint8.
    """
    n, height, width = images.shape
    frequency, position = np.arange(8)[:, None], np.arange(8)
    cosines = 0.5 * np.cos(np.pi * (2 * position + 1) * frequency / 16)
    cosines[0] /= np.sqrt(2)
    blocks = images.reshape(n, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4)
    coefficients = cosines @ (np.rint(blocks) - 128) @ cosines.T
    coefficients = np.rint(coefficients / JPEG_TABLE) * JPEG_TABLE
    blocks = cosines.T @ coefficients @ cosines + 128
    rounded = blocks.transpose(0, 1, 3, 2, 4).reshape(n, height, width)
    return np.rint(np.clip(rounded, 0, 255)).astype(np.uint8)
