"""Pictures of any shape as images of one size, their proportions kept."""

import numpy as np
from PIL import Image


def grey(image: Image.Image) -> Image.Image:
    """Returns the image in mode L, by the luma of ITU-R 601."""
    return image.convert("L")


def fit_within(image: Image.Image, side: int) -> Image.Image:
    """Scales an image so that its longer side is `side` pixels; the shorter has at least one."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def border_median(image: np.ndarray) -> float:
    """Returns the median of the outermost pixels of an image, [height, width]."""
    return float(np.median(np.concatenate([image[[0, -1]].ravel(), image[:, [0, -1]].ravel()])))


def pad_to_square(image: np.ndarray, side: int, ground: int) -> np.ndarray:
    """Centres an image, at most `side` high and wide, on a square of the value `ground`.

    Args:
      image: [height, width] uint8.
      side: of the square.
      ground: 0 to 255.

    Returns:
      [side, side] uint8.
    """
    square = np.full((side, side), ground, np.uint8)
    height, width = image.shape
    top, left = (side - height) // 2, (side - width) // 2
    square[top:top + height, left:left + width] = image
    return square


def fit_colours(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Scales an image to fit, and centres it on the median colour of its border.

    Args:
      image: of any mode and size; one of this size is only converted to RGB.
      height: of the result.
      width: of the result.

    Returns:
      [height, width, 3] uint8.
    """
    image = image.convert("RGB")
    scale = min(width / image.width, height / image.height)
    if image.size != (width, height):
        image = image.resize(
            (min(width, max(1, round(image.width * scale))),
             min(height, max(1, round(image.height * scale)))), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    border = np.concatenate([
        pixels[[0, -1]].reshape(-1, 3), pixels[:, [0, -1]].reshape(-1, 3)])
    fitted = np.empty((height, width, 3), np.uint8)
    fitted[:] = np.median(border, axis=0).round()
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    fitted[top:top + pixels.shape[0], left:left + pixels.shape[1]] = pixels
    return fitted
