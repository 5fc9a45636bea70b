"""Any image file as colours: a photo, a scan, a drawing."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from flaxdigits.errors import FlaxdigitsError

# Of Pillow's formats those that are decoded in this process: EPS, for one, starts a program.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

LONGEST = 1024  # pixels of the longer side; larger images are made smaller


def read_photo(path: Path) -> np.ndarray:
    """The first picture of an image file, upright, without transparency.

    Grey or colour, 1 to 16 bits or floating point. What is transparent becomes the picture's most
    common colour, or, if most of it is transparent, black below light strokes and white below dark
    ones.

    Args:
      path: of the file.

    Returns:
      [height, width, 3] float32, 0 to 1, at most 1,024 pixels high and wide.

    Raises:
      FlaxdigitsError: it is not there, no image, damaged, or larger than 89 million pixels
        (`PIL.Image.MAX_IMAGE_PIXELS`).
    """
    try:
        if not path.is_file():
            raise ValueError("a folder; name its files, as in 'folder/*.png'"
                             if Path(path).is_dir() else "no such file")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _pixels(image)
    except Exception as error:  # Pillow's readers do not say which kinds they raise
        told = " ".join(str(error).split()) or type(error).__name__
        raise FlaxdigitsError(
            f"{path}: cannot be read as an image ({told}); repair it or leave it out") from error


def _pixels(image: Image.Image) -> np.ndarray:
    image.draft("RGB", (LONGEST, LONGEST))  # spares a large JPEG most of its decoding
    if image.mode[0] in "IF":
        image = _stretched(image)
    elif "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
    else:
        image = image.convert("RGB")
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    pixels = np.asarray(ImageOps.exif_transpose(image), np.float32) / 255
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return pixels if pixels.shape[2] == 3 else _opaque(pixels)


def _stretched(image: Image.Image) -> Image.Image:
    """Numbers of another range as 0 to 255: their scale is not told, and contrast is all."""
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
    low, high = values.min(), values.max()
    stretched = Image.fromarray((values - low) * (255 / max(high - low, 1e-9)))
    stretched.info = image.info
    stretched.getexif().update(image.getexif())
    return stretched


def _opaque(pixels: np.ndarray) -> np.ndarray:
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    visible = colours[alpha[..., 0] > 0.5]
    if not len(visible):
        raise ValueError("all of it is transparent")
    if alpha.mean() > 0.5:
        ground = np.median(visible, axis=0)
    else:
        ground = np.full(3, visible.mean() < 0.5, np.float32)
    return colours * alpha + ground * (1 - alpha)
