"""What a trained network reads in images of any kind."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from flaxdigits.data.framing import frame
from flaxdigits.data.ink import find_ink
from flaxdigits.data.photos import read_photo
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
      seen: [height, width] uint8, what the network saw; None if it was not read.
      box: left, top, right and bottom of the character, as fractions of the picture.
    """

    file: str
    guesses: tuple[Guess, ...] = ()
    error: str | None = None
    seen: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The reading as JSON values, without the pixels."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        return {"file": self.file, "box": [round(edge, 4) for edge in self.box],
                "guesses": [dataclasses.asdict(guess) for guess in self.guesses]}


def read_images(network: TrainedNetwork, images: Iterable[str | Path]) -> list[Reading]:
    """Reads one character in each image: photo, scan or drawing, of any size and colours.

    The strokes are found (`flaxdigits.data.ink`) and brought to the size, place, thickness and
    polarity that the training set's have (`flaxdigits.data.framing`).

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
    try:
        pixels = read_photo(Path(file))
        try:
            ink = find_ink(pixels)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"{file}: {error}") from error
    except FlaxdigitsError as error:
        return Reading(file, error=str(error))
    height, width = pixels.shape[:2]
    bottom, right = ink.top + ink.strength.shape[0], ink.left + ink.strength.shape[1]
    box = ink.left / width, ink.top / height, right / width, bottom / height
    return Reading(file, seen=frame(ink, network.framing), box=box)


def _logits(network: TrainedNetwork, seen: list[np.ndarray]) -> list[np.ndarray]:
    """[classes] float32 of each image."""
    compiled = jax.jit(network.logits)
    logits: list[np.ndarray] = []
    for start in range(0, len(seen), BATCH):
        images = np.stack(seen[start:start + BATCH])[..., None]
        logits.extend(np.asarray(compiled(images)))
    return logits


def _guesses(logits: np.ndarray, class_names: tuple[str, ...]) -> tuple[Guess, ...]:
    confidence = softmax(logits.astype(np.float64))
    return tuple(Guess(class_names[place], float(confidence[place]))
                 for place in np.argsort(-confidence, kind="stable")[:GUESSES])
