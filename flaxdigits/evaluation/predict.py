"""What a trained network reads in images of any kind."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from flaxdigits.data.framing import frame, is_framed, seems_several
from flaxdigits.data.ink import Ink, find_ink
from flaxdigits.data.photos import LONGEST, Picture, colours, read_picture
from flaxdigits.data.squares import fit_colours, fit_within, grey, pad_to_square
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.trained import TrainedNetwork

GUESSES = 3
BATCH = 100  # images computed at once


@dataclasses.dataclass(frozen=True)
class Guess:
    """A class and how sure the network is of it: the softmax of its logit."""

    class_name: str
    confidence: float


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was made of one image.

    Attributes:
      file: its path as it was given.
      guesses: the three likeliest classes, or all if there are fewer; none if it was not read.
      error: why it was not read, in one line that names the file; else None.
      seen: [height, width] or [height, width, 3] uint8, what the network saw; None if it was not
        read.
      box: left, top, right and bottom of the character, as fractions of the picture.
      notes: lines that name the file and say what may be wrong with the guesses.
    """

    file: str
    guesses: tuple[Guess, ...] = ()
    error: str | None = None
    seen: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The reading as JSON values, without the pixels."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        values = {"file": self.file, "box": [round(edge, 4) for edge in self.box],
                  "guesses": [dataclasses.asdict(guess) for guess in self.guesses]}
        return values | ({"notes": list(self.notes)} if self.notes else {})


def read_images(network: TrainedNetwork, images: Iterable[str | Path]) -> list[Reading]:
    """Reads one character in each image: photo, scan or drawing, of any size and colours.

    An image that is framed as those of the user's own training set are is read exactly as they
    were. In any other the strokes are found (`flaxdigits.data.ink`) and brought to the size, place,
    thickness and polarity that the training set's have (`flaxdigits.data.framing`). A network of
    three channels reads the whole picture in colours, scaled to the size of its images.

    Args:
      network: that reads.
      images: paths of image files.

    Returns:
      A reading for each path, in their order; where a file cannot be read, with an error.
    """
    readings = [_look(str(path), network) for path in images]
    seen = [reading.seen for reading in readings if reading.seen is not None]
    logits = iter(_logits(network, seen))
    return [reading if reading.seen is None else dataclasses.replace(
        reading, guesses=_guesses(next(logits), network.class_names)) for reading in readings]


def _look(file: str, network: TrainedNetwork) -> Reading:
    framing = network.framing
    if framing is None:
        return _look_at_colours(file, network.image_shape)
    try:
        # Only at its full size can an image be as those of the training set.
        picture = read_picture(Path(file), None if framing.lowest else LONGEST)
        seen = _as_trained(picture, network)
        pixels = colours(picture.image)
        try:
            ink = find_ink(pixels)
        except FlaxdigitsError as error:
            if seen is None:
                raise FlaxdigitsError(f"{file}: {error}") from error
            ink = None
    except FlaxdigitsError as error:
        return Reading(file, error=str(error))
    notes = []
    if picture.has_more:
        notes.append(f"{file}: holds several pictures, of which the first was read")
    if ink is not None and seems_several(ink, framing):
        notes.append(f"{file}: there seem to be several characters in it, which were read as one; "
                     "cut them apart into files of their own")
    return Reading(file, seen=frame(ink, framing) if seen is None else seen,
                   box=_box(ink, *pixels.shape[:2]), notes=tuple(notes))


def _look_at_colours(file: str, shape: tuple[int, int, int]) -> Reading:
    """Reads a picture in colours, scaled to fit the shape and padded with its border's colour."""
    height, width, channels = shape
    if channels != 3:
        return Reading(file, error=(
            f"{file}: the network reads images of {channels} channels, which no image file has; "
            "give arrays to TrainedNetwork.logits"))
    try:
        picture = read_picture(Path(file))
    except FlaxdigitsError as error:
        return Reading(file, error=str(error))
    notes = (f"{file}: holds several pictures, of which the first was read",)
    return Reading(file, seen=fit_colours(picture.image, height, width), box=(0.0, 0.0, 1.0, 1.0),
                   notes=notes if picture.has_more else ())


def _as_trained(picture: Picture, network: TrainedNetwork) -> np.ndarray | None:
    """[height, width] uint8, read as the training set was; None if it is framed otherwise."""
    framing, image_size = network.framing, network.config.data.image_size
    if not framing.lowest:
        return None
    image = grey(picture.image)
    if image_size is not None:
        fitted = np.asarray(fit_within(image, image_size))
        seen = pad_to_square(fitted, image_size, framing.ground)
    elif image.size == (framing.width, framing.height):
        seen = np.asarray(image)
    else:
        return None
    return seen if is_framed(seen, framing) else None


def _box(ink: Ink | None, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the strokes as fractions; the whole if none were found."""
    if ink is None:
        return 0.0, 0.0, 1.0, 1.0
    bottom, right = ink.top + ink.strength.shape[0], ink.left + ink.strength.shape[1]
    return ink.left / width, ink.top / height, right / width, bottom / height


def _logits(network: TrainedNetwork, seen: list[np.ndarray]) -> list[np.ndarray]:
    """[classes] float32 of each image."""
    compiled = jax.jit(network.logits)
    logits: list[np.ndarray] = []
    for start in range(0, len(seen), BATCH):
        images = np.stack(seen[start:start + BATCH])
        images = images[..., None] if images.ndim == 3 else images
        logits.extend(np.asarray(compiled(images)))
    return logits


def _guesses(logits: np.ndarray, class_names: tuple[str, ...]) -> tuple[Guess, ...]:
    confidence = softmax(logits.astype(np.float64))
    return tuple(Guess(class_names[place], float(confidence[place]))
                 for place in np.argsort(-confidence, kind="stable")[:GUESSES])
