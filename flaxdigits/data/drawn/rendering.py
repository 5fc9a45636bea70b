"""Renders pen paths as images, without visiting every pixel for every stroke.

The path is laid down as weights on a fine grid, which is then blurred and sampled at the pixels,
first across, then down. Arithmetic is float64 throughout and sums in a fixed order, so that an
image does not depend on the other images of the batch.
"""

import numpy as np

GRID_PER_PIXEL = 2
TAIL = 4  # standard deviations after which a line's profile ends


def blurred_line(
    paths: list[np.ndarray], pressures: list[np.ndarray], sigma: np.ndarray, size: int
) -> np.ndarray:
    """Draws pen paths as Gaussian lines.

    Args:
        paths: one [n, points] complex128 array per stroke, in pixels; pixel centres are integers.
        pressures: one [n, points] or broadcastable array per stroke, the line's strength.
        sigma: [n] standard deviation of the line's profile in pixels.
        size: height and width of the images.

    Returns:
        [n, size, size] float64; 1 in the middle of a long straight line of pressure 1.
    """
    n = len(sigma)
    # A segment between two points of a path counts by its length, at its middle.
    middles = np.concatenate([(path[:, 1:] + path[:, :-1]) / 2 for path in paths], axis=1)
    lengths = np.concatenate(
        [
            np.abs(np.diff(path, axis=1)) * (pressure[:, 1:] + pressure[:, :-1]) / 2
            for path, pressure in zip(paths, pressures, strict=True)
        ],
        axis=1,
    )
    # A margin as wide as the widest line reaches, so that a line may leave the image.
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
    """Blurs a grid along its second axis and samples it there at the pixels.

    Args:
        cells: [n, grid, width] float64; the first pixel lies `margin` cells from the edge.
        sigma: [n] standard deviation in pixels of a Gaussian of height 1.
        margin: how many cells to either side count, at most.
        size: pixels to sample.

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
    """Turns Gaussian lines into ink with a sharp edge, one pixel of anti-aliasing.

    The distance from the line is read back from its Gaussian profile, so that crossings and narrow
    gaps fill with ink as they do on paper.

    Args:
        line: [n, size, size] float64 as `blurred_line` returns it.
        sigma: [n] the profile's standard deviation in pixels.
        radius: [n] half the pen's width in pixels.

    Returns:
        [n, size, size] float64 in [0, 1].
    """
    distance = sigma[:, None, None] * np.sqrt(-2 * np.log(np.clip(line, 1e-30, 1)))
    return np.clip(radius[:, None, None] - distance + 0.5, 0, 1)


# The luminance table of the JPEG standard (ITU-T T.81, table K.1), as the reference library scales
# it for quality 75, which is what the real Chinese MNIST files hold.
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
        images: [n, height, width] float64 in 0..255; the sides are multiples of 8.

    Returns:
        [n, height, width] uint8.
    """
    n, height, width = images.shape
    frequency, place = np.arange(8)[:, None], np.arange(8)
    cosines = 0.5 * np.cos(np.pi * (2 * place + 1) * frequency / 16)
    cosines[0] /= np.sqrt(2)
    blocks = images.reshape(n, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4)
    coefficients = cosines @ (np.rint(blocks) - 128) @ cosines.T
    coefficients = np.rint(coefficients / JPEG_TABLE) * JPEG_TABLE
    blocks = cosines.T @ coefficients @ cosines + 128
    rounded = blocks.transpose(0, 1, 3, 2, 4).reshape(n, height, width)
    return np.rint(np.clip(rounded, 0, 255)).astype(np.uint8)
