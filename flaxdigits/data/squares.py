"""Pictures of any shape as grey squares of one size, their proportions kept."""

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
