"""The framing of characters: their position, size and stroke width in the images of a data set."""

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from PIL import Image
from scipy import ndimage

from flaxdigits.data.ink import Ink, label_components
from flaxdigits.data.squares import border_median
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.field_types import check

MEASURED = 300  # largest number of images of a data set to measure, at equal intervals
VISIBLE = 0.25  # fraction of the strongest ink of an image; fainter ink is not measured

# How far the features of an image may be outside of the range of the measured images, in addition
# to a tenth of that range: ground and ink (of 255), box, row and column of the center (pixels).
TOLERANCE = np.array([8, 8, 1, 1, 1])
# The largest horizontal gap, vertical gap and second component that count as a single character in
# any data set, and how far an image may exceed the layout of its data set.
ONE_CHARACTER = np.array([0.15, 0.15, 0.5])
LAYOUT_TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Framing:
    """The position and size of the characters of a data set, and the width of their strokes.

    Attributes:
      height, width: the size of the images in pixels.
      box: the longer side of the bounding box of the strokes, in pixels.
      centring: what is at the center of the images: `mass`, the center of mass of the strokes, or
        `box`, the center of their bounding box.
      stroke: the smallest width of the strokes, in pixels.
      ground: the value of the background, 0 to 255.
      ink: the value of the strongest ink, 0 to 255.
      layout: the largest horizontal and vertical gap in a character, and the size of its second
        largest component (see the function `layout`); empty if unknown.
      lowest, highest: the range of ground, ink, box, and row and column of the center of mass over
        the images; empty if it is unknown, so every image is reframed.
    """

    height: int
    width: int
    box: int
    centring: Literal["mass", "box"]
    stroke: float
    ground: int
    ink: int
    layout: tuple[float, ...] = ()
    lowest: tuple[float, ...] = ()
    highest: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("layout", "lowest", "highest"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))


# The box and the centering of MNIST are documented by its authors (yann.lecun.com/exdb/mnist). The
# other values were measured by `measure_framing`.
FRAMINGS = {
    "mnist": Framing(
        28, 28, box=20, centring="mass", stroke=1.8, ground=0, ink=255, layout=(0.0, 0.0, 0.5)),
    "chinese_mnist": Framing(
        64, 64, box=23, centring="box", stroke=0.7, ground=0, ink=174, layout=(0.25, 0.5, 1.0)),
}


def measure_framing(images: np.ndarray) -> Framing:
    """Measures the framing of a data set on up to 300 of its images.

    `box`, `ground` and `ink` are medians over the images, `stroke` is the 5th percentile of their
    stroke widths, and `layout` the 99th percentile of their layouts. If all images are blank, `box`
    is the longer side of an image.

    Args:
      images: [examples, height, width, 1] uint8, grayscale.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), MEASURED)).astype(int))
    values = images[chosen, ..., 0].astype(np.float32)
    border = np.concatenate([values[:, [0, -1]].ravel(), values[:, :, [0, -1]].ravel()])
    ground = np.median(border)
    direction = 1 if np.median(values.max((1, 2)) + values.min((1, 2))) >= 2 * ground else -1
    features, centers, masses, strokes, layouts = [], [], [], [], []
    for image in values:
        strength = np.clip(direction * (image - ground), 0, None)
        if strength.max() == 0:
            continue
        rows, columns = np.nonzero(strength > VISIBLE * strength.max())
        features.append(_features(image, ground, direction))
        centers.append((rows.max() + rows.min() + columns.max() + columns.min()) / 2)
        masses.append(features[-1][3:].sum())
        strokes.append(stroke_width(strength / strength.max()))
        layouts.append(layout(strength))
    if not features:
        height, width = values.shape[1:]
        return Framing(height, width, max(height, width), "box", 0, int(ground), 255)
    _, ink, box, _, _ = np.median(features, axis=0)
    return Framing(
        *values.shape[1:], box=int(box),
        centring="mass" if np.std(masses) < 0.5 * np.std(centers) else "box",
        stroke=round(float(np.percentile(strokes, 5)), 1), ground=int(ground), ink=int(ink),
        layout=_round(np.percentile(layouts, 99, axis=0)),
        lowest=_round(np.min(features, axis=0)), highest=_round(np.max(features, axis=0)))


def is_framed(image: np.ndarray, framing: Framing) -> bool:
    """Returns whether the framing of an image is already that of the data set.

    Args:
      image: [height, width] uint8.
      framing: the framing of the data set.
    """
    if not framing.lowest or image.shape != (framing.height, framing.width):
        return False
    direction = 1 if framing.ink >= framing.ground else -1
    if (direction * (image.astype(np.float32) - framing.ground)).max() <= 0:
        return False
    features = _features(image.astype(np.float32), framing.ground, direction)
    lowest, highest = np.array(framing.lowest), np.array(framing.highest)
    tolerance = TOLERANCE + 0.1 * (highest - lowest)
    return bool(np.all((features >= lowest - tolerance) & (features <= highest + tolerance)))


def seems_several(ink: Ink, framing: Framing) -> bool:
    """Returns whether the strokes seem to be those of several characters.

    Their layout is compared with that of the data set, since a Chinese character may have separate
    parts.
    """
    if not framing.layout:
        return False
    largest = np.maximum(np.array(framing.layout) + LAYOUT_TOLERANCE, ONE_CHARACTER)
    return bool(np.any(layout(ink.strength) > largest))


def layout(strength: np.ndarray) -> np.ndarray:
    """Measures how far apart the strokes of a character are.

    Args:
      strength: [height, width]; 0 is the background.

    Returns:
      [3] float64: the width of the widest empty column band between strokes and the height of the
      highest empty row band, as fractions of the longer side of the bounding box; and the longer
      side of the second largest connected component, as a fraction of that of the largest one.
    """
    visible = strength > VISIBLE * strength.max()
    columns, rows = (np.flatnonzero(visible.any(axis=axis)) for axis in (0, 1))
    side = max(np.ptp(rows), np.ptp(columns)) + 1
    across, down = (np.diff(lines, prepend=lines[0] - 1).max() - 1 for lines in (columns, rows))
    components, _ = label_components(visible)
    sizes = sorted(max(side.stop - side.start for side in box)
                   for box in ndimage.find_objects(components))
    return np.array([across / side, down / side, sizes[-2] / sizes[-1] if len(sizes) > 1 else 0.0])


def _features(image: np.ndarray, ground: float | np.floating, direction: int) -> np.ndarray:
    """Returns ground, ink, box, and row and column of the center of mass: [5] float64.

    Args:
      image: [height, width], values 0 to 255.
      ground: the value of the background of the data set.
      direction: 1 if the ink is lighter than the background, -1 if it is darker.
    """
    strength = np.clip(direction * (image - ground), 0, None)
    rows, columns = np.nonzero(strength > VISIBLE * strength.max())
    return np.array([
        border_median(image), ground + direction * strength.max(),
        max(np.ptp(rows), np.ptp(columns)) + 1, *ndimage.center_of_mass(strength)])


def _round(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 2) for value in values)


def recorded_framing(values: dict[str, Any] | None, path: Path) -> Framing | None:
    """Returns the framing that a run recorded; None if there is none, or fields are missing.

    Args:
      values: the field `framing` of the `config.json` of the run.
      path: the path of that file, for the error message.

    Raises:
      FlaxdigitsError: if a value has the wrong type, or is not possible for an image.
    """
    hints = typing.get_type_hints(Framing)
    if values is None or values.keys() != hints.keys():
        return None
    try:
        framing = Framing(**{
            field.name: check(values[field.name], hints[field.name], field,
                              f"data.framing.{field.name}")
            for field in dataclasses.fields(Framing)})
    except FlaxdigitsError as error:
        raise FlaxdigitsError(f"{path}: {error}; restore the file from a copy") from error
    if not (1 <= framing.height <= 2**16 and 1 <= framing.width <= 2**16
            and 1 <= framing.box <= 2**16 and 0 <= framing.stroke <= 2**16
            and 0 <= framing.ground <= 255 and 0 <= framing.ink <= 255
            and len(framing.layout) in (0, len(ONE_CHARACTER))
            and len(framing.lowest) == len(framing.highest)
            and len(framing.lowest) in (0, len(TOLERANCE))):
        raise FlaxdigitsError(
            f"{path}: data.framing is not possible for an image, got {values!r}; restore the file "
            "from a copy")
    return framing


def frame(ink: Ink, framing: Framing) -> np.ndarray:
    """Renders a character as an image of the data set: [height, width] uint8.

    Thin strokes are dilated, the character is scaled to the box of the framing, and it is moved
    by whole pixels, so an image of MNIST hardly changes.
    """
    strength = ink.strength
    more = framing.stroke * max(strength.shape) / framing.box - stroke_width(strength)
    if more > 1:
        strength = dilate(strength, round(more / 2))
    scale = min(framing.box / max(strength.shape), framing.height / strength.shape[0],
                framing.width / strength.shape[1])
    height, width = (max(1, round(side * scale)) for side in strength.shape)
    method = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(strength).resize((width, height), method))
    small = small / small.max()
    middle = (ndimage.center_of_mass(small) if framing.centring == "mass"
              else ((height - 1) / 2, (width - 1) / 2))
    top, left = (
        min(max(int(length / 2 - center + 0.5), 0), length - side) for length, center, side in zip(
            (framing.height, framing.width), middle, small.shape, strict=True))
    placed = np.zeros((framing.height, framing.width), np.float32)
    placed[top:top + height, left:left + width] = small
    return (framing.ground + placed * (framing.ink - framing.ground)).round().astype(np.uint8)


def stroke_width(strength: np.ndarray) -> float:
    """Returns the mean width of the strokes in pixels.

    Strokes are where the strength is above 0.5. For a straight band, the width is four times the
    mean distance to the background.

    Args:
      strength: [height, width] float32, 0 to 1.
    """
    factor = max(1, 256 // max(strength.shape))  # measure thin strokes with subpixel precision
    padded = np.pad(strength, 1)
    is_ink = np.asarray(ndimage.zoom(padded, factor, order=1) if factor > 1 else padded) > 0.5
    if not is_ink.any():
        return 0.0
    # The nearest ground is never farther away than the edge of the box around the ink.
    rows, columns = ndimage.find_objects(is_ink.astype(np.uint8))[0]
    is_ink = is_ink[rows.start - 1:rows.stop + 1, columns.start - 1:columns.stop + 1]
    # The distance to the edge of the ink is half a pixel less than to the nearest background pixel.
    distances = cast(np.ndarray, ndimage.distance_transform_edt(is_ink))[is_ink] - 0.5
    return 4 * float(distances.mean()) / factor


def dilate(strength: np.ndarray, radius: int) -> np.ndarray:
    """Dilates strokes with a disc.

    The disc is processed row by row, since the time of a running maximum along a row does not
    depend on its width; dilating a large image with the whole disc at once takes seconds.

    Args:
      strength: [height, width] float32, 0 to 1.
      radius: the radius of the disc in pixels.

    Returns:
      [height + 2 * radius, width + 2 * radius] float32.
    """
    if radius < 1:
        return strength
    padded = np.pad(strength, radius)
    grown = np.zeros_like(padded)
    for y in range(radius + 1):
        half = math.isqrt(int(radius * (radius + 0.5)) - y * y)
        wide = ndimage.maximum_filter1d(padded, 2 * half + 1, axis=1, mode="constant")
        height = len(padded) - y
        np.maximum(grown[y:], wide[:height], out=grown[y:])
        np.maximum(grown[:height], wide[y:], out=grown[:height])
    return grown
