"""Classifies image files with a trained network."""

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

GUESSES = 3  # number of classes to report for each image
BATCH_SIZE = 100


@dataclasses.dataclass(frozen=True)
class Guess:
    """A predicted class and its probability, the softmax of the logits."""

    class_name: str
    confidence: float


@dataclasses.dataclass(frozen=True)
class ImagePrediction:
    """The prediction for one image file.

    Attributes:
      file: the path of the file as it was passed.
      guesses: the three classes of the highest probability, or all if there are fewer; empty if
        the file could not be read.
      error: why the file could not be read, in one line that names it; None if it was read.
      network_input: [height, width] or [height, width, 3] uint8, the preprocessed image; None if it
        was not read.
      box: left, top, right and bottom of the character, as fractions of the image.
      notes: possible problems with the prediction, each in one line that names the file.
    """

    file: str
    guesses: tuple[Guess, ...] = ()
    error: str | None = None
    network_input: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Converts the prediction to JSON values, without the pixels."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        values = {"file": self.file, "box": [round(edge, 4) for edge in self.box],
                  "guesses": [dataclasses.asdict(guess) for guess in self.guesses]}
        return values | ({"notes": list(self.notes)} if self.notes else {})


def predict_images(network: TrainedNetwork, images: Iterable[str | Path]) -> list[ImagePrediction]:
    """Classifies the character in each image: a photo, scan or drawing of any size and colours.

    If the model was trained on custom images, an image with the same framing is preprocessed in the
    same way as these. In all other images the strokes are located (`flaxdigits.data.ink`) and
    transformed to the size, position, thickness and polarity of the strokes in the training images
    (`flaxdigits.data.framing`). For a model of colour images, the whole image is scaled to the size
    of the training images.

    Args:
      network: the trained network.
      images: the paths of the image files.

    Returns:
      A prediction for each path, in the same order; with an error if the file cannot be read.
    """
    predictions = [_read(str(path), network) for path in images]
    inputs = [prediction.network_input for prediction in predictions if prediction.error is None]
    logits = iter(_logits(network, inputs))
    return [prediction if prediction.error is not None else dataclasses.replace(
        prediction, guesses=_guesses(next(logits), network.class_names))
        for prediction in predictions]


def _read(file: str, network: TrainedNetwork) -> ImagePrediction:
    """Reads and preprocesses an image file; the returned prediction has no guesses yet."""
    framing = network.framing
    if framing is None:
        return _read_in_colour(file, network.image_shape)
    try:
        # The framing of custom images can only be compared at full size.
        picture = read_picture(Path(file), None if framing.lowest else LONGEST)
        network_input = _read_like_training_image(picture, network)
        pixels = colours(picture.image)
        try:
            ink = find_ink(pixels)
        except FlaxdigitsError as error:
            if network_input is None:
                raise FlaxdigitsError(f"{file}: {error}") from error
            ink = None
    except FlaxdigitsError as error:
        return ImagePrediction(file, error=str(error))
    notes = []
    if picture.has_more:
        notes.append(f"{file}: contains several images, of which the first was read")
    if ink is not None and seems_several(ink, framing):
        notes.append(f"{file}: seems to contain several characters, which were read as one; crop "
                     "each character to a separate file")
    if network_input is None:
        network_input = frame(ink, framing)
    return ImagePrediction(file, network_input=network_input, box=_box(ink, *pixels.shape[:2]),
                           notes=tuple(notes))


def _read_in_colour(file: str, shape: tuple[int, int, int]) -> ImagePrediction:
    """Reads an image in colour, scales it to fit the shape and pads it with its border's colour."""
    height, width, channels = shape
    if channels != 3:
        return ImagePrediction(file, error=(
            f"{file}: the network was trained on images of {channels} channels, which no image "
            "file has; pass arrays to TrainedNetwork.logits"))
    try:
        picture = read_picture(Path(file))
    except FlaxdigitsError as error:
        return ImagePrediction(file, error=str(error))
    notes = (f"{file}: contains several images, of which the first was read",)
    return ImagePrediction(
        file, network_input=fit_colours(picture.image, height, width), box=(0.0, 0.0, 1.0, 1.0),
        notes=notes if picture.has_more else ())


def _read_like_training_image(picture: Picture, network: TrainedNetwork) -> np.ndarray | None:
    """Preprocesses an image in the same way as the custom training images.

    Returns:
      [height, width] uint8, or None if the framing differs from that of the training images.
    """
    framing, image_size = network.framing, network.config.data.image_size
    if not framing.lowest:  # only measured for custom training images
        return None
    image = grey(picture.image)
    if image_size is not None:
        fitted = np.asarray(fit_within(image, image_size))
        pixels = pad_to_square(fitted, image_size, framing.ground)
    elif image.size == (framing.width, framing.height):
        pixels = np.asarray(image)
    else:
        return None
    return pixels if is_framed(pixels, framing) else None


def _box(ink: Ink | None, height: int, width: int) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of the strokes, as fractions of the image.

    Returns the box of the complete image if no strokes were found.
    """
    if ink is None:
        return 0.0, 0.0, 1.0, 1.0
    bottom, right = ink.top + ink.strength.shape[0], ink.left + ink.strength.shape[1]
    return ink.left / width, ink.top / height, right / width, bottom / height


def _logits(network: TrainedNetwork, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Computes the logits of each image: [classes] float32."""
    compiled = jax.jit(network.logits)
    logits: list[np.ndarray] = []
    for start in range(0, len(inputs), BATCH_SIZE):
        images = np.stack(inputs[start:start + BATCH_SIZE])
        images = images[..., None] if images.ndim == 3 else images
        logits.extend(np.asarray(compiled(images)))
    return logits


def _guesses(logits: np.ndarray, class_names: tuple[str, ...]) -> tuple[Guess, ...]:
    confidence = softmax(logits.astype(np.float64))
    return tuple(Guess(class_names[label], float(confidence[label]))
                 for label in np.argsort(-confidence, kind="stable")[:GUESSES])
