"""How the characters of a training set sit in their images, and a character made to sit so."""

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from flaxdigits.data.ink import Ink
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.field_types import check

MEASURED = 300  # images of a data set, evenly spread
VISIBLE = 0.25  # of an image's strongest ink: fainter is not measured


@dataclasses.dataclass(frozen=True)
class Framing:
    """Where and how large a data set's characters are, and how thick and strong their strokes.

    Attributes:
      height, width: of the images.
      box: the longer side of the box around the strokes, in pixels.
      centring: what lies in the images' middle: the strokes' centre of mass, or that of the box.
      stroke: how wide strokes are at least, in pixels.
      ground: the value of what is not ink, 0 to 255.
      ink: the value of the strongest ink, 0 to 255.
    """

    height: int
    width: int
    box: int
    centring: Literal["mass", "box"]
    stroke: float
    ground: int
    ink: int


# MNIST's box and centre are its authors' (yann.lecun.com/exdb/mnist); the rest was measured with
# `measure_framing`: Chinese MNIST keeps the size and the place that each hand gave a character.
FRAMINGS = {
    "mnist": Framing(28, 28, box=20, centring="mass", stroke=1.8, ground=0, ink=255),
    "chinese_mnist": Framing(64, 64, box=23, centring="box", stroke=0.7, ground=0, ink=174),
}


def measure_framing(images: np.ndarray) -> Framing:
    """The framing of a data set, from up to 300 of its images.

    Sizes and values are medians; the stroke is thinner in only one of twenty images.

    Args:
      images: [examples, height, width, 1] uint8.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), MEASURED)).astype(int))
    values = images[chosen, ..., 0].astype(np.float32)
    border = np.concatenate([values[:, [0, -1]].ravel(), values[:, :, [0, -1]].ravel()])
    ground = np.median(border)
    direction = 1 if np.median(values.max((1, 2)) + values.min((1, 2))) >= 2 * ground else -1
    sizes, centres, masses, strokes, inks = [], [], [], [], []
    for strength in np.clip(direction * (values - ground), 0, None):
        if strength.max() == 0:
            continue
        rows, columns = np.nonzero(strength > VISIBLE * strength.max())
        sizes.append(max(np.ptp(rows), np.ptp(columns)) + 1)
        centres.append((rows.max() + rows.min() + columns.max() + columns.min()) / 2)
        masses.append(sum(ndimage.center_of_mass(strength)))
        strokes.append(stroke_width(strength / strength.max()))
        inks.append(strength.max())
    if not sizes:
        return Framing(*values.shape[1:], max(values.shape[1:]), "box", 0, int(ground), 255)
    return Framing(
        *values.shape[1:], box=int(np.median(sizes)),
        centring="mass" if np.std(masses) < 0.5 * np.std(centres) else "box",
        stroke=round(float(np.percentile(strokes, 5)), 1), ground=int(ground),
        ink=int(ground + direction * np.median(inks)))


def recorded_framing(values: dict[str, Any] | None, place: Path) -> Framing | None:
    """Returns the framing that a run recorded; None if it recorded none, or not all of it.

    Args:
      values: of the JSON file of the run.
      place: that file, to be named in errors.

    Raises:
      FlaxdigitsError: if a value is of another type, or no image can be so.
    """
    hints = typing.get_type_hints(Framing)
    if values is None or values.keys() != hints.keys():
        return None
    for field in dataclasses.fields(Framing):
        try:
            check(values[field.name], hints[field.name], field, f"data.framing.{field.name}")
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"{place}: {error}; restore it from a copy") from error
    framing = Framing(**values)
    if not (1 <= framing.height <= 2**16 and 1 <= framing.width <= 2**16
            and 1 <= framing.box <= 2**16 and 0 <= framing.stroke <= 2**16
            and 0 <= framing.ground <= 255 and 0 <= framing.ink <= 255):
        raise FlaxdigitsError(
            f"{place}: data.framing is of no image, got {values!r}; restore it from a copy")
    return framing


def frame(ink: Ink, framing: Framing) -> np.ndarray:
    """The character as an image of the data set: [height, width] uint8.

    Thin strokes are thickened, the box is scaled, and the whole is moved by whole pixels, so that
    an image of MNIST stays almost as it is.
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
    """The width of a stroke, in pixels, where ink is at least half as strong as can be.

    Four times the mean distance of its points to the ground, as it is for a straight band.

    Args:
      strength: [height, width] float32, 0 to 1.
    """
    factor = max(1, 256 // max(strength.shape))  # thin strokes are measured between the pixels
    padded = np.pad(strength, 1)
    is_ink = (ndimage.zoom(padded, factor, order=1) if factor > 1 else padded) > 0.5
    if not is_ink.any():
        return 0.0
    distances = ndimage.distance_transform_edt(is_ink)[is_ink] - 0.5  # to the border of ink
    return 4 * float(distances.mean()) / factor


def thickened(strength: np.ndarray, radius: int) -> np.ndarray:
    """The strokes, grown by a disc.

    The disc is taken line by line, as the running maximum along a line takes no longer for a wide
    one: of a large image the disc as a whole takes seconds.
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
