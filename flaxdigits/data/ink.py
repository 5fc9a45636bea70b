"""The strokes of one character on paper, a board or a screen, whatever the light.

Ink is what is thin and differs in colour from what is around it. So dark on light, light on dark
and one colour on another are the same, and shadows and a gradient of light are not ink.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from flaxdigits.errors import FlaxdigitsError

FAINTEST = 0.05  # difference of colour, of 1, that is taken for ink
SPECK = 0.03  # of the largest stroke's ink: less is dirt
BRIEF = 0.25  # of the border that strokes of a tightly cut image cover at most
SKEWED = 0.7  # skewness from which on it tells ink from ground
CLEAR_OF_GRAIN = 1.5  # times as strong as the strongest grain of the ground ink is at least

NOTHING = "there is nothing on it, or it is too faint"


@dataclasses.dataclass(frozen=True)
class Ink:
    """A character's strokes.

    Attributes:
      strength: [height, width] float32, 0 (ground) to 1 (ink), cut to the strokes.
      top, left: of it in the picture, in pixels.
    """

    strength: np.ndarray
    top: int
    left: int


def find_ink(pixels: np.ndarray) -> Ink:
    """The strokes on a picture of one character.

    What touches the border is left out as long as something else is there (edges of the paper,
    ruled lines, parts of other characters), unless the picture is cut tightly around its strokes.

    Args:
      pixels: [height, width, 3] float32, 0 to 1.

    Raises:
      FlaxdigitsError: if there is nothing on it.
    """
    longest = max(pixels.shape)
    blur = longest / 500 if longest > 250 else 0  # of a photo's grain
    values = _from_ground_to_ink(ndimage.gaussian_filter(pixels, (blur, blur, 0)))
    values -= _trend(values)  # which would stand out at the border
    # What is narrower than a third of the picture stands out; shadows are wider.
    contrast = ndimage.white_tophat(values, 2 * (longest // 6) + 1, mode="nearest")
    if contrast.max() < FAINTEST:
        raise FlaxdigitsError(NOTHING)
    threshold = _threshold(contrast)
    strokes = _strokes(contrast, contrast > threshold)
    # Strokes fade into the ground where they end; its grain is not part of them.
    ground = contrast[contrast <= threshold]
    grain = np.median(ground) + 4 * np.median(np.abs(ground - np.median(ground)))
    full = np.percentile(contrast[strokes], 90)
    if full < max(FAINTEST, CLEAR_OF_GRAIN * grain):
        raise FlaxdigitsError(NOTHING)
    strength = np.clip((contrast - grain) / (full - grain), 0, 1)
    near = ndimage.binary_dilation(strokes, np.ones((3, 3)), iterations=1 + int(2 * blur))
    rows, columns = ndimage.find_objects(strokes.astype(np.uint8))[0]
    return Ink(np.where(near, strength, 0).astype(np.float32)[rows, columns],
               rows.start, columns.start)


def _from_ground_to_ink(colours: np.ndarray) -> np.ndarray:
    """[height, width] float32 that grows along the axis of colour from ground to ink.

    Details differ most along this axis. Thin ink has less of the picture than the ground, which the
    skewness tells: edges of shadows have as much of either side. Thick ink may have more, and then
    the ground is what there is more of on the border.
    """
    size = max(colours.shape) // 4 + 1
    details = colours - ndimage.uniform_filter(colours, (size, size, 1), mode="nearest")
    details = details.reshape(-1, 3)
    axis = np.linalg.eigh(details.T @ details)[1][:, -1]
    values, along = colours @ axis, details @ axis
    spread = np.square(along).mean() ** 1.5
    skewness = np.power(along, 3).mean() / max(spread, 1e-12)
    if abs(skewness) < SKEWED:
        width = max(1, min(values.shape) // 20)
        border = np.ones(values.shape, bool)
        border[width:-width, width:-width] = False
        skewness = 0.5 - (values[border] > _threshold(values)).mean()
    return values if skewness >= 0 else -values


def _trend(values: np.ndarray) -> np.ndarray:
    """The quadratic surface that is nearest: a gradient of light, a vignette."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in values.shape)
    y, x = np.meshgrid(y, x, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    factors = np.linalg.solve(terms.T @ terms + 1e-6 * np.eye(6), terms.T @ values.ravel())
    return (terms @ factors).reshape(values.shape)


def _threshold(values: np.ndarray) -> float:
    """Between ground and ink: Otsu's (1979), which parts the two classes' means most."""
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    above = values.size - below
    means = sums / np.maximum(below, 1), ((counts * middles).sum() - sums) / np.maximum(above, 1)
    between = below * above * np.square(means[0] - means[1])
    return float(edges[1 + between.argmax()])


def _strokes(contrast: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[height, width] bool: the parts of the mask that are of the character."""
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    sides = parts[0], parts[-1], parts[:, 0], parts[:, -1]
    border = np.concatenate(sides)
    is_tight = all(side.any() for side in sides) and (border > 0).mean() < BRIEF
    amounts = ndimage.sum_labels(contrast, parts, np.arange(count + 1))
    amounts[0] = 0
    inside = np.where(np.isin(np.arange(count + 1), border), 0, amounts)
    if not is_tight and inside.max() > SPECK * amounts.max():
        amounts = inside
    return np.isin(parts, np.flatnonzero(amounts > SPECK * amounts.max()))
