"""Generates synthetic Chinese MNIST: thin, dim pen lines on black, 64x64."""

import numpy as np
from numpy.typing import NDArray

from flaxdigits.data.drawn.handwriting import Deviations, Handwriting, write_characters
from flaxdigits.data.drawn.images import DrawnImages
from flaxdigits.data.drawn.numeral_skeletons import NUMERALS
from flaxdigits.data.drawn.rendering import blurred_line, jpeg_rounded
from flaxdigits.data.drawn.skeletons import Skeleton
from flaxdigits.progress import NO_PROGRESS, Progress

SIZE = 64
SAMPLES = 10
CLASS_ORDER = (9, 10, 11, 12, 13, 14, 0, 1, 2, 3, 4, 5, 6, 7, 8)  # in the CSV of the real data

# The mean width and height of each numeral and its mean center (x, y), in pixels, measured on the
# first 50 writers of the real data.
BOXES = (
    (21.2, 34.9, 31.5, 29.6),
    (16.3, 2.0, 33.6, 32.1),
    (22.3, 11.7, 34.5, 34.0),
    (22.6, 17.8, 31.1, 33.2),
    (19.5, 19.3, 32.2, 32.9),
    (22.8, 21.8, 34.2, 32.8),
    (18.3, 21.9, 29.9, 32.2),
    (20.6, 19.8, 33.8, 32.8),
    (21.9, 20.6, 36.1, 33.5),
    (21.3, 24.3, 32.1, 32.2),
    (17.6, 29.3, 32.2, 33.8),
    (14.0, 26.0, 33.0, 33.4),
    (19.9, 30.7, 29.3, 34.4),
    (15.6, 24.4, 31.6, 33.9),
    (25.4, 23.6, 32.1, 33.4),
)

# About half of the variance of the real data is between writers.
BETWEEN = Deviations(
    slant=0.06, rise=0.07, turn=0.04, size=0.20, width=0.10, height=0.08, waves=0.012,
    point=0.012, stroke_shift=0.022, stroke_turn=0.06, stroke_size=0.10,
)
WITHIN = Deviations(
    slant=0.03, rise=0.03, turn=0.025, size=0.06, width=0.04, height=0.04, waves=0.008,
    point=0.007, stroke_shift=0.014, stroke_turn=0.03, stroke_size=0.05,
)

SIGMA = 0.40  # standard deviation of the profile of a line, in pixels
STRENGTH = 0.95  # the strength of the middle of a horizontal line, before saturation
UPRIGHT_LOSS = 0.25  # vertical lines are dimmer than horizontal ones in the real data
MOST_STROKES = max(len(s.strokes) for skeletons in NUMERALS for s in skeletons)
MEAN_RISE = 0.08  # horizontal strokes rise to the right, in addition to the rise in the skeletons


def draw_chinese_mnist(
    seed: int = 0, writer_count: int = 100, progress: Progress = NO_PROGRESS
) -> DrawnImages:
    """Generates synthetic handwritten numerals like those of Chinese MNIST.

    Args:
        seed: the seed; the same seed gives the same bytes.
        writer_count: the number of writers, each of whom writes the 15 characters 10 times.
        progress: is notified of the number of images.

    Returns:
        Images, [150 * writer_count, 64, 64] uint8, in the order of the CSV of the real data: by
        character, then by writer and sample, both sorted as strings.
    """
    as_text = sorted(
        ((w, s) for w in range(1, writer_count + 1) for s in range(1, SAMPLES + 1)),
        key=lambda pair: (str(pair[0]), str(pair[1])),
    )
    order = np.array([(c, w, s) for c in CLASS_ORDER for w, s in as_text], np.int32)
    labels, writers, samples = order.T.copy()
    writer, n = writers - 1, len(labels)
    rng = np.random.default_rng(seed)
    handwriting = Handwriting(writer, writer_count, BETWEEN, WITHIN)
    forms = rng.uniform(size=(writer_count, len(NUMERALS)))[writer, labels]
    centers = random_offsets(rng, writer, samples - 1)
    strength = STRENGTH * np.exp(
        0.10 * rng.standard_normal(writer_count)[writer] + 0.07 * rng.standard_normal(n)
    )
    sigma = SIGMA * np.exp(0.08 * rng.standard_normal(writer_count)[writer])
    grip = rng.standard_normal((n, MOST_STROKES, 3))
    images = np.empty((n, SIZE, SIZE), np.uint8)
    written = write_characters(NUMERALS, labels, forms, handwriting, rng, progress)
    for skeleton, rows, paths in written:
        paths = fit_to_box(skeleton, labels[rows[0]], paths)
        pressures = [pressure(path, grip[rows, stroke]) for stroke, path in enumerate(paths)]
        line = blurred_line(
            [path + centers[rows, None] for path in paths], pressures, sigma[rows], SIZE
        )
        # Ink saturates where strokes cross.
        ink = 255 * (1 - np.exp(-strength[rows, None, None] * line))
        images[rows] = jpeg_rounded(ink)
    return DrawnImages(images, labels, writers, samples)


def random_offsets(rng: np.random.Generator, writer: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Returns a random offset of each character from its mean position, in pixels: [n] complex128.

    All characters with the same writer and sample share a vertical offset, since they were written
    in one row of a sheet.

    Args:
        rng: the random generator.
        writer: [n] int, the writer of each character, from 0.
        sample: [n] int, the sample of each character, from 0.
    """
    pairs = (writer.max() + 1, SAMPLES)
    row = rng.normal(0, 2.5, pairs)[writer, sample]
    by_writer = rng.normal(0, 1, (pairs[0], 2))[writer] * (1.9, 2.7)
    each = rng.normal(0, 2.0, (len(writer), 2))
    return by_writer[:, 0] + each[:, 0] + 1j * (by_writer[:, 1] + each[:, 1] + row)


def fit_to_box(
    skeleton: Skeleton, label: int, paths: list[NDArray[np.complex128]]
) -> list[NDArray[np.complex128]]:
    """Scales and moves paths by the map that fits the skeleton into the box of its class.

    Args:
        skeleton: the skeleton that the paths were written with.
        label: the class of the skeleton.
        paths: one [n, points] complex128 array per stroke, relative to the center of the unit box.

    Returns:
        One [n, points] complex128 array per stroke, in pixels.
    """
    points = np.array([point for stroke in skeleton.strokes for point in stroke])
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2 - 0.5
    width, height, x, y = BOXES[label]
    x_scale, y_scale = (width, height) / (high - low)
    fitted = []
    for path in paths:
        across = x_scale * (path.real - middle[0])
        down = y_scale * (path.imag - middle[1]) - MEAN_RISE * across
        fitted.append(x + across + 1j * (y + down))
    return fitted


def pressure(path: NDArray[np.complex128], grip: np.ndarray) -> np.ndarray:
    """Returns the strength of the line along a stroke: [n, points] float64.

    Args:
        path: [n, points] complex128, the stroke.
        grip: [n, 3] standard normal values: the mean strength of the stroke, and the sine and
            cosine of its variation along the stroke.
    """
    level, sine, cosine = grip.T[..., None]
    angle = np.linspace(0, 2 * np.pi, path.shape[1])
    swell = 0.1 * (sine * np.sin(angle) + cosine * np.cos(angle))
    steps = np.gradient(path, axis=1)
    upright = (steps.imag / np.maximum(np.abs(steps), 1e-9)) ** 2
    return np.clip(1 + 0.18 * level + swell, 0.1, None) * (1 - UPRIGHT_LOSS * upright)
