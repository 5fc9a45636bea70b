"""Finds the strokes of one character on paper, a board or a screen, in any light.

Ink is what is thin and differs in colour from its surroundings. Dark on light, light on dark and
one colour on another are treated alike, and shadows and gradients of light are not ink.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from flaxdigits.errors import FlaxdigitsError

FAINTEST = 0.05  # smallest difference of colour, of 1, that counts as ink
SPECK = 0.03  # of the largest stroke's ink: less is dirt
BRIEF = 0.25  # of the border that strokes of a tightly cut image cover at most
SKEWED = 0.7  # smallest skewness that distinguishes ink from ground
TWO_COLOURS = 0.78  # of the variance that two colours explain; of an even gradient it is 0.75
BOLDEST = 0.45  # of the picture's longer side that a stroke at its border is wide
BOLDEST_CROPPED = 0.6  # where the strokes reach all of its sides
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
    """Finds the strokes on an image of one character.

    What touches the border is left out as long as something else is there (edges of the paper,
    ruled lines, parts of other characters), unless the picture is cut tightly around its strokes.

    Args:
      pixels: [height, width, 3] float32, 0 to 1.

    Raises:
      FlaxdigitsError: if there is nothing on it.
    """
    longest = max(pixels.shape)
    blur = longest / 500 if longest > 250 else 0  # of a photo's grain
    values, details = _along_contrast(ndimage.gaussian_filter(pixels, (blur, blur, 0)))
    return _in_two_colours(values, blur) or _in_uneven_light(values, details, blur)


def _in_two_colours(values: np.ndarray, blur: float) -> Ink | None:
    """Finds bold or thin strokes of a drawing, a scan or a crop; None if it has more colours."""
    threshold = _threshold(values)
    is_high = values > threshold
    if not 0 < is_high.mean() < 1:
        return None
    between = values[is_high].mean() - values[~is_high].mean()
    explained = is_high.mean() * (1 - is_high.mean()) * between ** 2
    if between < FAINTEST or explained < TWO_COLOURS * values.var():
        return None
    contrast, is_ink = (values, is_high) if _is_ink(is_high) else (-values, ~is_high)
    ground = contrast[~ndimage.binary_dilation(is_ink, np.ones((3, 3)))]  # no edges of strokes
    level = np.median(ground) if ground.size else contrast.min()
    contrast = contrast - level
    strokes = _strokes(np.clip(contrast, 0, None), is_ink)
    if _is_surface(strokes):
        return None
    grain = 4 * np.median(np.abs(ground - level)) if ground.size else 0
    return _ink(contrast, strokes, grain, blur)


def _is_surface(strokes: np.ndarray) -> bool:
    """Returns whether it is a shadow, or the table around the paper, which are wider than strokes.

    They reach one to three sides of the picture; strokes reach none, or all if cut tightly.
    """
    reached = sum(side.any() for side in (
        strokes[0], strokes[-1], strokes[:, 0], strokes[:, -1]))
    widest = 2 * ndimage.distance_transform_edt(np.pad(strokes, 1)).max()
    return reached > 0 and widest > (
        BOLDEST_CROPPED if reached == 4 else BOLDEST) * max(strokes.shape)


def _in_uneven_light(values: np.ndarray, details: np.ndarray, blur: float) -> Ink:
    """Finds the strokes of a photo: what is narrower than a third of it; shadows are wider."""
    values = values if _rises_to_ink(values, details) else -values
    values = values - _trend(values)  # which would stand out at the border
    contrast = ndimage.white_tophat(values, 2 * (max(values.shape) // 6) + 1, mode="nearest")
    if contrast.max() < FAINTEST:
        raise FlaxdigitsError(NOTHING)
    threshold = _threshold(contrast)
    strokes = _strokes(contrast, contrast > threshold)
    ground = contrast[contrast <= threshold]
    grain = np.median(ground) + 4 * np.median(np.abs(ground - np.median(ground)))
    return _ink(contrast, strokes, grain, blur)


def _ink(contrast: np.ndarray, strokes: np.ndarray, grain: float, blur: float) -> Ink:
    """Returns the strokes with their strength.

    Args:
      contrast: [height, width], to the ground.
      strokes: [height, width] bool.
      grain: the strongest contrast that the ground has in itself.
      blur: of the picture, in pixels.

    Raises:
      FlaxdigitsError: if they are hardly stronger than the grain.
    """
    full = np.percentile(contrast[strokes], 90)
    if full < max(FAINTEST, CLEAR_OF_GRAIN * grain):
        raise FlaxdigitsError(NOTHING)
    # Strokes fade into the ground where they end; its grain is not part of them.
    strength = np.clip((contrast - grain) / (full - grain), 0, 1)
    near = ndimage.binary_dilation(strokes, np.ones((3, 3)), iterations=1 + int(2 * blur))
    rows, columns = ndimage.find_objects(strokes.astype(np.uint8))[0]
    return Ink(np.where(near, strength, 0).astype(np.float32)[rows, columns],
               rows.start, columns.start)


def _along_contrast(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projects the image, and its details, on the axis of colour on which details differ most.

    Returns:
      Both [height, width]; ink is at either end of the axis.
    """
    size = max(colours.shape) // 4 + 1
    details = colours - ndimage.uniform_filter(colours, (size, size, 1), mode="nearest")
    flat = details.reshape(-1, 3)
    axis = np.linalg.eigh(flat.T @ flat)[1][:, -1]
    return colours @ axis, details @ axis


def _is_ink(mask: np.ndarray) -> bool:
    """Returns whether the mask, one of two colours of an image, is the ink rather than the ground.

    The ground has the border, or most of the picture. On a crop where neither is so, the strokes
    are in one piece and the ground around them in several.
    """
    border = _border(mask)
    for share, clear in ((border, 0.05), (mask.mean(), 0.2)):
        if not clear < share < 1 - clear:
            return share < 0.5
    whole, other_whole = _is_whole(mask), _is_whole(~mask)
    return whole if whole != other_whole else border < 0.5


def _border(mask: np.ndarray) -> float:
    """Returns the share of the mask in the border of the image."""
    width = max(1, min(mask.shape) // 20)
    border = np.ones(mask.shape, bool)
    border[width:-width, width:-width] = False
    return mask[border].mean()


def _is_whole(mask: np.ndarray) -> bool:
    """Returns whether nearly all of the mask is one connected piece."""
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.bincount(parts[mask]).max() > 0.9 * mask.sum()


def _rises_to_ink(values: np.ndarray, details: np.ndarray) -> bool:
    """Returns whether ink has higher values than the ground of a photo.

    Thin ink covers less of the image than the ground, which shows in the skewness; edges of shadows
    have equal amounts of both sides. Thick ink may cover more; then the ground is the colour that
    covers more of the border.
    """
    scale = np.square(details).mean() ** 1.5
    skewness = np.power(details, 3).mean() / max(scale, 1e-12)
    if abs(skewness) >= SKEWED:
        return skewness >= 0
    return _border(values > _threshold(values)) <= 0.5


def _trend(values: np.ndarray) -> np.ndarray:
    """Fits a quadratic surface, such as a gradient of light or a vignette."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in values.shape)
    y, x = np.meshgrid(y, x, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    factors = np.linalg.solve(terms.T @ terms + 1e-6 * np.eye(6), terms.T @ values.ravel())
    return (terms @ factors).reshape(values.shape)


def _threshold(values: np.ndarray) -> float:
    """Returns Otsu's threshold (1979), which maximises the variance between ground and ink."""
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
