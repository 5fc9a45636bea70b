"""Finds the strokes of a character in an image of paper, a board or a screen, in any light.

Ink is thin and differs in color from its surroundings. It may be darker or lighter than the
background, or of another color. Shadows and gradual changes of brightness are not ink.
"""

import dataclasses
from typing import cast

import numpy as np
from scipy import ndimage

from flaxdigits.errors import FlaxdigitsError

FAINTEST = 0.05  # smallest difference in color, of 1, that counts as ink
SPECK = 0.03  # components with a smaller fraction of the ink of the largest one are dirt
BRIEF = 0.25  # largest fraction of the border that strokes of a tightly cropped image cover
SKEWED = 0.7  # smallest skewness that distinguishes ink from background
TWO_COLORS = 0.78  # smallest fraction of the variance that two colors explain (gradient: 0.75)
BOLDEST = 0.45  # largest width of a stroke at the border, as a fraction of the longer side
BOLDEST_CROPPED = 0.6  # the same if the strokes reach all four sides
CLEAR_OF_GRAIN = 1.5  # smallest ratio of the ink to the noise of the background

NOTHING = "the image is empty, or its strokes are too faint"


@dataclasses.dataclass(frozen=True)
class Ink:
    """The strokes of a character.

    Attributes:
      strength: [height, width] float32, 0 (background) to 1 (ink), cropped to the strokes.
      top, left: the position of this array in the image, in pixels.
    """

    strength: np.ndarray
    top: int
    left: int


def find_ink(pixels: np.ndarray) -> Ink:
    """Finds the strokes in an image of one character.

    Components that touch the border (edges of the paper, ruled lines, parts of other characters)
    are ignored if there are others, unless the image is cropped tightly around the strokes.

    Args:
      pixels: [height, width, 3] float32, 0 to 1.

    Raises:
      FlaxdigitsError: if there are no strokes, or they are too faint.
    """
    longest = max(pixels.shape)
    blur = longest / 500 if longest > 250 else 0  # removes the noise of photos
    values, details = _along_contrast(ndimage.gaussian_filter(pixels, (blur, blur, 0)))
    return _in_two_colors(values, blur) or _in_uneven_light(values, details, blur)


def _in_two_colors(values: np.ndarray, blur: float) -> Ink | None:
    """Finds strokes of any width in an image of two colors; None if there are more colors.

    Such images are drawings, scans and cropped characters.
    """
    threshold = _threshold(values)
    is_high = values > threshold
    if not 0 < is_high.mean() < 1:
        return None
    between = values[is_high].mean() - values[~is_high].mean()
    explained = is_high.mean() * (1 - is_high.mean()) * between ** 2
    if between < FAINTEST or explained < TWO_COLORS * values.var():
        return None
    contrast, is_ink = (values, is_high) if _is_ink(is_high) else (-values, ~is_high)
    near = cast(np.ndarray, ndimage.binary_dilation(is_ink, np.ones((3, 3))))
    ground = contrast[~near]  # without stroke edges
    level = np.median(ground) if ground.size else contrast.min()
    contrast = contrast - level
    strokes = _strokes(np.clip(contrast, 0, None), is_ink)
    if _is_surface(strokes):
        return None
    grain = 4 * np.median(np.abs(ground - level)) if ground.size else 0
    return _ink(contrast, strokes, grain, blur)


def _is_surface(strokes: np.ndarray) -> bool:
    """Returns whether the components are not strokes, but a shadow or the table around the paper.

    Such surfaces are wider than strokes and reach at least one side of the image.

    Args:
      strokes: [height, width] bool.
    """
    reached = sum(side.any() for side in (
        strokes[0], strokes[-1], strokes[:, 0], strokes[:, -1]))
    widest = 2 * cast(np.ndarray, ndimage.distance_transform_edt(np.pad(strokes, 1))).max()
    return bool(reached > 0 and widest > (
        BOLDEST_CROPPED if reached == 4 else BOLDEST) * max(strokes.shape))


def _in_uneven_light(values: np.ndarray, details: np.ndarray, blur: float) -> Ink:
    """Finds the strokes of a photo: structures that are narrower than a third of the image.

    Shadows are wider.
    """
    values = values if _is_ink_higher(values, details) else -values
    values = values - _trend(values)  # the trend would be visible as contrast at the border
    size = 2 * (max(values.shape) // 6) + 1
    contrast = cast(np.ndarray, ndimage.white_tophat(values, size, mode="nearest"))
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
      contrast: [height, width], the contrast to the background.
      strokes: [height, width] bool.
      grain: the contrast of the noise of the background.
      blur: the standard deviation in pixels by which the image was blurred.

    Raises:
      FlaxdigitsError: if the strokes are hardly stronger than the noise.
    """
    full = np.percentile(contrast[strokes], 90)
    if full < max(FAINTEST, CLEAR_OF_GRAIN * grain):
        raise FlaxdigitsError(NOTHING)
    # Strokes fade out at their edges; the noise of the background is subtracted.
    strength = np.clip((contrast - grain) / (full - grain), 0, 1)
    near = ndimage.binary_dilation(strokes, np.ones((3, 3)), iterations=1 + int(2 * blur))
    rows, columns = ndimage.find_objects(strokes.astype(np.uint8))[0]
    return Ink(np.where(near, strength, 0).astype(np.float32)[rows, columns],
               rows.start, columns.start)


def _along_contrast(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projects the image and its details onto the color axis with the largest contrast of details.

    Args:
      colors: [height, width, 3].

    Returns:
      The projected image and the projected details, [height, width] each. Ink has either the
      highest or the lowest values.
    """
    size = max(colors.shape) // 4 + 1
    details = colors - ndimage.uniform_filter(  # SciPy has no types, and the default is an int
        colors, (size, size, 1), mode="nearest")  # pyright: ignore[reportArgumentType]
    flat = details.reshape(-1, 3)
    axis = np.linalg.eigh(flat.T @ flat)[1][:, -1]
    return colors @ axis, details @ axis


def _is_ink(mask: np.ndarray) -> bool:
    """Returns whether the mask, [height, width] bool, one of two colors of an image, is the ink.

    The background covers nearly all of the border, or most of the image. If neither decides, as in
    a tight crop, the strokes are one component and the background consists of several.
    """
    border = _border_share(mask)
    for share, clear in ((border, 0.05), (mask.mean(), 0.2)):
        if not clear < share < 1 - clear:
            return share < 0.5
    is_connected, is_rest_connected = _is_connected(mask), _is_connected(~mask)
    return is_connected if is_connected != is_rest_connected else border < 0.5


def _border_share(mask: np.ndarray) -> float:
    """Returns the fraction of the border of the image that the mask covers."""
    width = max(1, min(mask.shape) // 20)
    border = np.ones(mask.shape, bool)
    border[width:-width, width:-width] = False
    return mask[border].mean()


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the connected components of a mask; pixels that touch at a corner are connected.

    Returns:
      The number of the component of each pixel, from 1, and 0 outside of the mask: [height, width]
      int; and the number of components.
    """
    return cast(tuple[np.ndarray, int], ndimage.label(mask, np.ones((3, 3))))


def _is_connected(mask: np.ndarray) -> bool:
    """Returns whether nearly all of the mask is one connected component."""
    parts, _ = label_components(mask)
    return np.bincount(parts[mask]).max() > 0.9 * mask.sum()


def _is_ink_higher(values: np.ndarray, details: np.ndarray) -> bool:
    """Returns whether ink has higher values than the background of a photo.

    Thin ink covers less of the image than the background, so the details are skewed; the edges
    of shadows are not, since both their sides cover equal areas. If the skewness does not decide,
    the background is the color that covers more of the border.
    """
    scale = np.square(details).mean() ** 1.5
    skewness = np.power(details, 3).mean() / max(scale, 1e-12)
    if abs(skewness) >= SKEWED:
        return skewness >= 0
    return _border_share(values > _threshold(values)) <= 0.5


def _trend(values: np.ndarray) -> np.ndarray:
    """Returns a quadratic surface fitted to the brightness: [height, width].

    The surface approximates gradual changes of brightness, such as a vignette.
    """
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in values.shape)
    y, x = np.meshgrid(y, x, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    factors = np.linalg.solve(terms.T @ terms + 1e-6 * np.eye(6), terms.T @ values.ravel())
    return (terms @ factors).reshape(values.shape)


def _threshold(values: np.ndarray) -> float:
    """Returns Otsu's threshold (1979), which maximizes the variance between background and ink."""
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    above = values.size - below
    means = sums / np.maximum(below, 1), ((counts * middles).sum() - sums) / np.maximum(above, 1)
    between = below * above * np.square(means[0] - means[1])
    return float(edges[1 + between.argmax()])


def _strokes(contrast: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the components of the mask that are part of the character: [height, width] bool.

    Args:
      contrast: [height, width], the contrast to the background.
      mask: [height, width] bool, all components.
    """
    parts, count = label_components(mask)
    sides = parts[0], parts[-1], parts[:, 0], parts[:, -1]
    border = np.concatenate(sides)
    is_tight = all(side.any() for side in sides) and (border > 0).mean() < BRIEF
    amounts = ndimage.sum_labels(contrast, parts, np.arange(count + 1))
    amounts[0] = 0
    inside = np.where(np.isin(np.arange(count + 1), border), 0, amounts)
    if not is_tight and inside.max() > SPECK * amounts.max():
        amounts = inside
    return np.isin(parts, np.flatnonzero(amounts > SPECK * amounts.max()))
