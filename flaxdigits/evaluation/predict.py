"""Classifies image files with a trained network."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from scipy.special import softmax

from flaxdigits.data.arrays import as_array
from flaxdigits.data.framing import frame, is_framed, seems_several
from flaxdigits.data.ink import Ink, find_ink
from flaxdigits.data.photos import LONGEST, Picture, read_picture, to_rgb
from flaxdigits.data.squares import fit_colors, fit_within, pad_to_square, to_gray
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.trained import TrainedNetwork
from flaxdigits.progress import NO_PROGRESS, Progress

GUESSES = 3  # number of classes to report for each image


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
      error: why the file could not be read, in one line that names the file; None if it was read.
      network_input: [height, width] or [height, width, 3] uint8, the preprocessed image; None if
        the file could not be read.
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


def frame_arrays(network: TrainedNetwork, images: Iterable[ArrayLike]) -> np.ndarray:
    """Frames images of any size, as `predict_images` does for files.

    Args:
      network: the trained network.
      images: each is [height, width], [height, width, 1] or [height, width, 3] uint8.

    Returns:
      The inputs of the network: [n, height, width, channels] uint8.

    Raises:
      FlaxdigitsError: if `images` is not a list; if an image has another shape or dtype, or shows
        nothing (the message names its index).
    """
    try:
        images = list(images)
    except TypeError as error:
        raise FlaxdigitsError(f"images must be a list of arrays, got {images!r}") from error
    inputs = np.empty((len(images), *network.image_shape), np.uint8)
    for index, image in enumerate(images):
        name = f"images[{index}]"
        array = as_array(image, name)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape or (
                array.ndim == 3 and array.shape[-1] not in (1, 3)):
            raise FlaxdigitsError(
                f"{name} must be uint8 of shape [height, width] or [height, width, 3], got "
                f"{array.dtype} of shape {list(array.shape)}")
        array = array[..., 0] if array.shape[2:] == (1,) else array
        picture = Picture(Image.fromarray(array), has_more=False)
        network_input = _framed(name, picture, network).network_input
        inputs[index] = network_input.reshape(network.image_shape)
    return inputs


def predict_images(
    network: TrainedNetwork, images: Sequence[str | Path], progress: Progress = NO_PROGRESS
) -> list[ImagePrediction]:
    """Classifies the character in each image: a photo, scan or drawing of any size and colors.

    If the model was trained on custom images, an image that is framed like them is preprocessed in
    the same way as in training. In all other images the strokes are located
    (`flaxdigits.data.ink`) and transformed to the size, position, thickness and polarity of the
    strokes in the training images (`flaxdigits.data.framing`). For a model of color images, the
    whole image is scaled to the size of the training images.

    Args:
      network: the trained network.
      images: the paths of the image files.
      progress: is notified of the number of images that are read.

    Returns:
      A prediction for each path, in the same order. It has an `error` if the file cannot be read.
    """
    predictions = []
    with progress.stage("reading images", len(images)) as advance:
        for path in images:
            predictions.append(_read(str(path), network))
            advance(len(predictions))
    inputs = [prediction.network_input for prediction in predictions if prediction.error is None]
    with progress.stage("classifying the images"):
        logits = iter(network.logits(np.stack(inputs)) if inputs else ())
    return [prediction if prediction.error is not None else dataclasses.replace(
        prediction, guesses=_guesses(next(logits), network.class_names))
        for prediction in predictions]


def _read(file: str, network: TrainedNetwork) -> ImagePrediction:
    """Reads and frames an image file; the returned prediction has no guesses yet."""
    framing = network.framing
    try:
        # The framing of custom images can only be compared at full size.
        is_reduced = framing is not None and not framing.lowest
        return _framed(file, read_picture(Path(file), LONGEST if is_reduced else None), network)
    except FlaxdigitsError as error:
        return ImagePrediction(file, error=str(error))


def _framed(name: str, picture: Picture, network: TrainedNetwork) -> ImagePrediction:
    """Frames a picture as the training images are; the returned prediction has no guesses yet.

    Raises:
      FlaxdigitsError: naming the picture, if it cannot be framed.
    """
    notes = []
    if picture.has_more:
        notes.append(f"{name}: contains several images, of which the first was read")
    framing, (height, width, channels) = network.framing, network.image_shape
    if framing is None:
        if channels != 3:
            raise FlaxdigitsError(
                f"{name}: the network was trained on images of {channels} channels, which no image "
                "file has; pass arrays to the method logits of flaxdigits.load(workdir)")
        return ImagePrediction(
            name, network_input=fit_colors(picture.image, height, width),
            box=(0.0, 0.0, 1.0, 1.0), notes=tuple(notes))
    network_input = _read_like_training_image(picture, network)
    pixels = to_rgb(picture.image)
    ink = None
    try:
        ink = find_ink(pixels)
    except FlaxdigitsError as error:
        if network_input is None:
            raise FlaxdigitsError(f"{name}: {error}") from error
    if ink is not None and seems_several(ink, framing):
        notes.append(f"{name}: seems to contain several characters, which were read as one; crop "
                     "each character to a separate file")
    if network_input is None:
        assert ink is not None  # otherwise the error was raised
        network_input = frame(ink, framing)
    return ImagePrediction(name, network_input=network_input, box=_box(ink, *pixels.shape[:2]),
                           notes=tuple(notes))


def _read_like_training_image(picture: Picture, network: TrainedNetwork) -> np.ndarray | None:
    """Preprocesses an image in the same way as the custom training images.

    Returns:
      [height, width] uint8, or None if the framing differs from that of the training images.
    """
    framing, image_size = network.framing, network.config.data.image_size
    if framing is None or not framing.lowest:  # only measured for custom training images
        return None
    image = to_gray(picture.image)
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


def _guesses(logits: np.ndarray, class_names: tuple[str, ...]) -> tuple[Guess, ...]:
    confidence = softmax(logits.astype(np.float64))
    return tuple(Guess(class_names[label], float(confidence[label]))
                 for label in np.argsort(-confidence, kind="stable")[:GUESSES])
