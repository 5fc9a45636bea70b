"""Draws a data set like Chinese MNIST: thin, dim pen lines on black in 64x64."""

import numpy as np

from flaxdigits.data.drawn.handwriting import Distortion, Hands, Spread, write_strokes
from flaxdigits.data.drawn.images import DrawnImages
from flaxdigits.data.drawn.numeral_skeletons import NUMERALS
from flaxdigits.data.drawn.rendering import blurred_line, jpeg_rounded

SIZE = 64
SAMPLES = 10
CHUNK = 500  # images rendered at once, which bounds memory and changes nothing else
CLASS_ORDER = (9, 10, 11, 12, 13, 14, 0, 1, 2, 3, 4, 5, 6, 7, 8)  # of the real set's CSV

# Mean width and height of each numeral and its mean centre (x, y), in pixels, measured on the
# first 50 writers of the real set.
PLACES = (
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

# Of the real set's variance about half lies between its writers.
BETWEEN = Spread(
    slant=0.06, rise=0.07, turn=0.04, size=0.20, width=0.10, height=0.08, waves=0.012,
    point=0.012, stroke_shift=0.022, stroke_turn=0.06, stroke_size=0.10,
)
WITHIN = Spread(
    slant=0.03, rise=0.03, turn=0.025, size=0.06, width=0.04, height=0.04, waves=0.008,
    point=0.007, stroke_shift=0.014, stroke_turn=0.03, stroke_size=0.05,
)

MEAN_RISE = 0.08  # level strokes rise to the right; skeletons already rise a little


def draw_chinese_mnist(seed: int = 0, writer_count: int = 100) -> DrawnImages:
    """Draws handwritten Chinese numerals like Chinese MNIST's.

    Args:
        seed: the same seed gives the same bytes.
        writer_count: writers, each of whom draws the 15 characters 10 times.

    Returns:
        Images [150 * writer_count, 64, 64] uint8 in the order of the real set's CSV: by character,
        then by writer and sample, both sorted as text.
    """
    as_text = sorted(
        ((w, s) for w in range(1, writer_count + 1) for s in range(1, SAMPLES + 1)),
        key=lambda pair: (str(pair[0]), str(pair[1])),
    )
    order = np.array([(c, w, s) for c in CLASS_ORDER for w, s in as_text], np.int32)
    labels, writers, samples = order.T.copy()
    n = len(labels)
    rng = np.random.default_rng(seed)
    hands = Hands(writers - 1, writer_count, BETWEEN, WITHIN)
    distortion = Distortion.draw(hands, rng)
    distortion.rise[:] += MEAN_RISE
    # A writer's tenth sample of every character stood in one row of the sheet.
    row_shift = rng.normal(0, 2.5, (writer_count, SAMPLES))[writers - 1, samples - 1]
    own_shift = rng.normal(0, 1, (writer_count, 2)) * (1.9, 2.7)
    shift = own_shift[writers - 1] + rng.normal(0, 2.0, (n, 2))
    shift = shift[:, 0] + 1j * (shift[:, 1] + row_shift)
    brightness = 158 * np.exp(
        0.10 * rng.standard_normal(writer_count)[writers - 1] + 0.07 * rng.standard_normal(n)
    )
    sigma = 0.40 * np.exp(0.08 * rng.standard_normal(writer_count)[writers - 1])
    form = rng.uniform(size=(writer_count, len(NUMERALS)))[writers - 1, labels]
    images = np.empty((n, SIZE, SIZE), np.uint8)
    for character, skeletons in enumerate(NUMERALS):
        width, height, x, y = PLACES[character]
        ends = np.cumsum([skeleton.share for skeleton in skeletons])
        choice = np.searchsorted(ends, form * ends[-1])
        for number, skeleton in enumerate(skeletons):
            rows = np.flatnonzero((labels == character) & (choice == number))
            if not len(rows):
                continue
            paths = write_strokes(skeleton, hands.of(rows), rng)
            points = np.array([complex(*p) for stroke in skeleton.strokes for p in stroke])
            low = points.real.min() + 1j * points.imag.min()
            high = points.real.max() + 1j * points.imag.max()
            box = high - low
            pressures = [
                pressure(rng, len(rows), path.shape[1]) for path in paths
            ]
            for start in range(0, len(rows), CHUNK):
                part = slice(start, start + CHUNK)
                chunk = rows[part]
                placed = []
                for path in paths:
                    path = path[part] - (low + high) / 2
                    scale = max(width, height)
                    path = path.real * width / box.real / scale + 1j * path.imag * height / box.imag / scale
                    placed.append(scale * distortion.apply(chunk, path) + (x + 1j * y) + shift[chunk, None])
                line = blurred_line(placed, [p[part] for p in pressures], sigma[chunk], SIZE)
                ink = np.clip(line * brightness[chunk, None, None], 0, 255)
                images[chunk] = jpeg_rounded(ink)
    return DrawnImages(images, labels, writers, samples)


def pressure(rng: np.random.Generator, n: int, points: int) -> np.ndarray:
    """[n, points] float64: how hard the pen presses along a stroke, about 1."""
    t = np.linspace(0, 1, points)
    phase, level = rng.uniform(0, 2 * np.pi, (n, 1)), rng.normal(1, 0.15, (n, 1))
    cycles = rng.uniform(0.2, 1.5, (n, 1))
    return np.clip(level + 0.15 * np.sin(2 * np.pi * cycles * t + phase), 0.1, None)
