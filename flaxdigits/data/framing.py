"""The framing of characters: their position, size and stroke width in the images of a data set."""

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from flaxdigits.data.ink import Ink
from flaxdigits.data.squares import border_median
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.field_types import check

MEASURED = 300  # images of a data set, at equal intervals
VISIBLE = 0.25  # of an image's strongest ink: fainter is not measured

# Ground and ink of 255, box, row and column of the centre in pixels: how far outside the range of
# the measured images an image may be, in addition to a tenth of that range.
SPARE = np.array([8, 8, 1, 1, 1])
# Gap across, gap down, size of the second piece: what a single character may have in any data set,
# and how much more than the data set's own.
ONE_CHARACTER = np.array([0.15, 0.15, 0.5])
MORE_THAN_USUAL = 0.1


@dataclasses.dataclass(frozen=True)
class Framing:
    """Where and how large a data set's characters are, and how thick and strong their strokes.

    Attributes:
      height, width: of the images.
      box: the longer side of the box around the strokes, in pixels.
      centring: what is in the centre of the images: the strokes' centre of mass or that of the box.
      stroke: how wide strokes are at least, in pixels.
      ground: the value of what is not ink, 0 to 255.
      ink: the value of the strongest ink, 0 to 255.
      layout: the largest gap across and gap down in a character, and its second largest piece, as
        `layout` measures them; empty if unknown.
      lowest, highest: the range that images have in ground, ink, box, and row and column of the
        centre of mass; empty where an image of that range is framed as any other.
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


# MNIST's box and centre are its authors' (yann.lecun.com/exdb/mnist); the rest was measured with
# `measure_framing`: Chinese MNIST keeps the size and position of each handwritten character.
FRAMINGS = {
    "mnist": Framing(
        28, 28, box=20, centring="mass", stroke=1.8, ground=0, ink=255, layout=(0.0, 0.0, 0.5)),
    "chinese_mnist": Framing(
        64, 64, box=23, centring="box", stroke=0.7, ground=0, ink=174, layout=(0.25, 0.5, 1.0)),
}


def measure_framing(images: np.ndarray) -> Framing:
    """Measures the framing of a data set on up to 300 of its images.

    Sizes and values are medians; the stroke is thinner in only one of twenty images, and one of a
    hundred exceeds the layout.

    Args:
      images: [examples, height, width, 1] uint8, grey.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), MEASURED)).astype(int))
    values = images[chosen, ..., 0].astype(np.float32)
    border = np.concatenate([values[:, [0, -1]].ravel(), values[:, :, [0, -1]].ravel()])
    ground = np.median(border)
    direction = 1 if np.median(values.max((1, 2)) + values.min((1, 2))) >= 2 * ground else -1
    features, centres, masses, strokes, layouts = [], [], [], [], []
    for image in values:
        strength = np.clip(direction * (image - ground), 0, None)
        if strength.max() == 0:
            continue
        rows, columns = np.nonzero(strength > VISIBLE * strength.max())
        features.append(_features(image, ground, direction))
        centres.append((rows.max() + rows.min() + columns.max() + columns.min()) / 2)
        masses.append(features[-1][3:].sum())
        strokes.append(stroke_width(strength / strength.max()))
        layouts.append(layout(strength))
    if not features:
        return Framing(*values.shape[1:], max(values.shape[1:]), "box", 0, int(ground), 255)
    _, ink, box, _, _ = np.median(features, axis=0)
    return Framing(
        *values.shape[1:], box=int(box),
        centring="mass" if np.std(masses) < 0.5 * np.std(centres) else "box",
        stroke=round(float(np.percentile(strokes, 5)), 1), ground=int(ground), ink=int(ink),
        layout=_rounded(np.percentile(layouts, 99, axis=0)),
        lowest=_rounded(np.min(features, axis=0)), highest=_rounded(np.max(features, axis=0)))


def is_framed(image: np.ndarray, framing: Framing) -> bool:
    """Returns whether an image is already framed as those of the data set are.

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
    spare = SPARE + 0.1 * (highest - lowest)
    return bool(np.all((features >= lowest - spare) & (features <= highest + spare)))


def seems_several(ink: Ink, framing: Framing) -> bool:
    """Returns whether strokes are as far apart as those of several characters.

    They are compared with the characters of the data set, since a Chinese character may have
    separate parts.
    """
    if not framing.layout:
        return False
    usual = np.maximum(np.array(framing.layout) + MORE_THAN_USUAL, ONE_CHARACTER)
    return bool(np.any(layout(ink.strength) > usual))


def layout(strength: np.ndarray) -> np.ndarray:
    """Measures how far apart the strokes of a character are.

    Args:
      strength: [height, width], 0 is ground.

    Returns:
      [3] float64: the widest empty band from top to bottom between strokes, that from left to
      right, and the longer side of the second largest connected piece; the former as fractions of
      the longer side of the box around the strokes, the latter of the largest piece's.
    """
    visible = strength > VISIBLE * strength.max()
    columns, rows = (np.flatnonzero(visible.any(axis=axis)) for axis in (0, 1))
    side = max(np.ptp(rows), np.ptp(columns)) + 1
    across, down = (np.diff(places, prepend=places[0] - 1).max() - 1 for places in (columns, rows))
    pieces, _ = ndimage.label(visible, np.ones((3, 3)))
    sizes = sorted(max(side.stop - side.start for side in box)
                   for box in ndimage.find_objects(pieces))
    return np.array([across / side, down / side, sizes[-2] / sizes[-1] if len(sizes) > 1 else 0.0])


def _features(image: np.ndarray, ground: float, direction: int) -> np.ndarray:
    """Returns ground, ink, box, and row and column of the centre of mass: [5] float64."""
    strength = np.clip(direction * (image - ground), 0, None)
    rows, columns = np.nonzero(strength > VISIBLE * strength.max())
    return np.array([
        border_median(image), ground + direction * strength.max(),
        max(np.ptp(rows), np.ptp(columns)) + 1, *ndimage.center_of_mass(strength)])


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 2) for value in values)


def recorded_framing(values: dict[str, Any] | None, place: Path) -> Framing | None:
    """Returns the framing that a run recorded; None if it recorded none, or not all of it.

    Args:
      values: the field of the JSON file of the run.
      place: the path of that file, for error messages.

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
        raise FlaxdigitsError(f"{place}: {error}; restore it from a copy") from error
    if not (1 <= framing.height <= 2**16 and 1 <= framing.width <= 2**16
            and 1 <= framing.box <= 2**16 and 0 <= framing.stroke <= 2**16
            and 0 <= framing.ground <= 255 and 0 <= framing.ink <= 255):
        raise FlaxdigitsError(
            f"{place}: data.framing is not possible for an image, got {values!r}; restore it from "
            "a copy")
    return framing


def frame(ink: Ink, framing: Framing) -> np.ndarray:
    """Renders a character as an image of the data set: [height, width] uint8.

    Thin strokes are thickened, the box is scaled, and the result is moved by whole pixels, so that
    an image of MNIST hardly changes.
    """
    strength = ink.strength
    more = framing.stroke * max(strength.shape) / framing.box - stroke_width(strength)
    if more > 1:
        strength = thickened(strength, round(more / 2))
    scale = min(framing.box / max(strength.shape), framing.height / strength.shape[0],
                framing.width / strength.shape[1])
    height, width = (max(1, round(side * scale)) for side in strength.shape)
    method = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(strength).resize((width, height), method))
    small = small / small.max()
    middle = (ndimage.center_of_mass(small) if framing.centring == "mass"
              else ((height - 1) / 2, (width - 1) / 2))
    top, left = (
        min(max(int(whole / 2 - place + 0.5), 0), whole - side) for whole, place, side in zip(
            (framing.height, framing.width), middle, small.shape, strict=True))
    placed = np.zeros((framing.height, framing.width), np.float32)
    placed[top:top + height, left:left + width] = small
    return (framing.ground + placed * (framing.ink - framing.ground)).round().astype(np.uint8)


def stroke_width(strength: np.ndarray) -> float:
    """Returns the width of the strokes, in pixels, where ink has at least half of full strength.

    It is four times the mean distance of their points to the ground, as for a straight band.

    Args:
      strength: [height, width] float32, 0 to 1.
    """
    factor = max(1, 256 // max(strength.shape))  # thin strokes are measured between the pixels
    padded = np.pad(strength, 1)
    is_ink = (ndimage.zoom(padded, factor, order=1) if factor > 1 else padded) > 0.5
    if not is_ink.any():
        return 0.0
    # The nearest ground is never farther away than the border of the box around the ink.
    rows, columns = ndimage.find_objects(is_ink.astype(np.uint8))[0]
    is_ink = is_ink[rows.start - 1:rows.stop + 1, columns.start - 1:columns.stop + 1]
    distances = ndimage.distance_transform_edt(is_ink)[is_ink] - 0.5  # to the border of ink
    return 4 * float(distances.mean()) / factor


def thickened(strength: np.ndarray, radius: int) -> np.ndarray:
    """Returns the strokes dilated by a disc.

    The disc is processed row by row, since the time of a running maximum along a row does not
    depend on its width; the dilation of a large image by the complete disc takes seconds.
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
