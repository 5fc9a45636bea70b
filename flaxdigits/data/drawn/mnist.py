"""Generates synthetic MNIST: thick bright digits, 20 pixels large, centered by mass in 28x28."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flaxdigits.data.drawn.handwriting import Deviations, Handwriting, write_characters
from flaxdigits.data.drawn.images import DrawnImages
from flaxdigits.data.drawn.rendering import blurred_line, thick_pen
from flaxdigits.data.drawn.skeletons import DIGITS
from flaxdigits.progress import NO_PROGRESS, Progress

SIZE = 28
BOX = 20  # pixels; the longer side of the bounding box of a digit

# The number of images of each digit among the 60,000 training images of MNIST.
CLASS_COUNTS = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])

# Every image counts as the work of a different writer, so all variation is in `within`.
NONE = Deviations(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
VARIATION = Deviations(
    slant=0.25, rise=0.04, turn=0.10, size=0, width=0.25, height=0, waves=0.05, point=0.022,
    stroke_shift=0.025, stroke_turn=0.06, stroke_size=0.08,
)
MEAN_SLANT = 0.16
MEAN_WIDTH = 1.05
PEN_RADIUS = 1.17  # pixels
PEN_RADIUS_DEVIATION = 0.31  # standard deviation of the logarithm


def draw_mnist(
    seed: int = 0, train_count: int = 60_000, test_count: int = 10_000,
    progress: Progress = NO_PROGRESS,
) -> DrawnImages:
    """Generates synthetic handwritten digits like those of MNIST.

    Args:
        seed: the seed; the same seed gives the same bytes.
        train_count: the number of training images, which come first.
        test_count: the number of test images.
        progress: is notified of the number of images.

    Returns:
        Images, [train_count + test_count, 28, 28] uint8, without writers.
    """
    n = train_count + test_count
    rng = np.random.default_rng(seed)
    labels = rng.choice(10, n, p=CLASS_COUNTS / CLASS_COUNTS.sum()).astype(np.int32)
    handwriting = Handwriting(np.zeros(n, np.int64), 1, between=NONE, within=VARIATION)
    radius = PEN_RADIUS * np.exp(PEN_RADIUS_DEVIATION * rng.standard_normal(n))
    forms = rng.uniform(size=n)
    images = np.empty((n, SIZE, SIZE), np.uint8)
    written = write_characters(DIGITS, labels, forms, handwriting, rng, progress)
    for _, rows, paths in written:
        leaning = [MEAN_WIDTH * p.real + (1j - MEAN_SLANT) * p.imag for p in paths]
        images[rows] = render(leaning, radius[rows])
    return DrawnImages(images, labels)


def render(paths: Sequence[NDArray[np.complexfloating]], radius: np.ndarray) -> np.ndarray:
    """Scales paths to the box, draws them, and centers them by mass: [n, 28, 28] uint8.

    Args:
        paths: one [n, points] complex128 array per stroke, of any size.
        radius: [n] float64, half the width of the pen in pixels.
    """
    radius = radius[:, None]
    points = np.concatenate(paths, axis=1)
    low = points.real.min(1, keepdims=True) + 1j * points.imag.min(1, keepdims=True)
    high = points.real.max(1, keepdims=True) + 1j * points.imag.max(1, keepdims=True)
    extent = np.maximum((high - low).real, (high - low).imag)
    scale = (BOX - 2 * radius) / extent
    # The box is aligned to the pixels and is then moved by whole pixels, as in MNIST.
    corner = (radius - 0.5) * (1 + 1j)
    paths = [(path - low) * scale + corner for path in paths]
    lengths = np.concatenate([np.abs(np.diff(path)) for path in paths], axis=1)
    middles = np.concatenate([(path[:, 1:] + path[:, :-1]) / 2 for path in paths], axis=1)
    mass = (middles * lengths).sum(1, keepdims=True) / lengths.sum(1, keepdims=True)
    shift = (SIZE - 1) / 2 * (1 + 1j) - mass
    shift = np.rint(shift.real) + 1j * np.rint(shift.imag)
    sigma = np.maximum(0.42 * radius[:, 0], 0.45)
    line = blurred_line(
        [path + shift for path in paths], [np.ones((1, p.shape[1])) for p in paths], sigma, SIZE
    )
    return np.rint(255 * thick_pen(line, sigma, radius[:, 0])).astype(np.uint8)
