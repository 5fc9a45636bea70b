"""Scales and pads images of any shape to one size, keeping their aspect ratio."""

import numpy as np
from PIL import Image


def to_gray(image: Image.Image) -> Image.Image:
    """Converts an image to grayscale (mode L) by the luma of ITU-R 601."""
    return image.convert("L")


def fit_within(image: Image.Image, side: int) -> Image.Image:
    """Scales an image so that its longer side is `side` pixels; the shorter one is at least 1."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def border_median(image: np.ndarray) -> float:
    """Returns the median of the outermost pixels of an image, [height, width]."""
    return float(np.median(np.concatenate([image[[0, -1]].ravel(), image[:, [0, -1]].ravel()])))


def pad_to_square(image: np.ndarray, side: int, ground: int) -> np.ndarray:
    """Pads an image to a square, in which it is centered.

    Args:
      image: [height, width] uint8, at most `side` high and wide.
      side: the side of the square in pixels.
      ground: the value of the padding, 0 to 255.

    Returns:
      [side, side] uint8.
    """
    square = np.full((side, side), ground, np.uint8)
    height, width = image.shape
    top, left = (side - height) // 2, (side - width) // 2
    square[top:top + height, left:left + width] = image
    return square


def fit_colors(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Scales an image to fit a size, and pads it with the median color of its border.

    Args:
      image: an image of any mode and size; if it has this size, it is only converted to RGB.
      height: the height of the result in pixels.
      width: the width of the result in pixels.

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
