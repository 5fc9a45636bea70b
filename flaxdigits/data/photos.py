"""Reads image files: photos, scans and drawings of any size, mode and orientation.

Image folders, `predict` and reports all use `read_picture`, so they read a file in the same
way.
"""

import contextlib
import dataclasses
import functools
import importlib
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from flaxdigits.errors import FlaxdigitsError

# The formats that Pillow decodes in this process (for EPS it would start a program) and recognizes
# by their first bytes. HEIF needs the plugin pillow-heif.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "SGI", "TIFF",
           "WEBP")
# The first bytes of these formats are ambiguous, so the suffix of the name must match, too.
FORMATS_BY_NAME = ("DIB", "PCX", "TGA")
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
NEED_HEIF = "HEIC needs the plugin pillow-heif: pip install pillow-heif"

LONGEST = 1024  # pixels of the longer side; larger photos are scaled down
SAME_COLOR = 0.2  # smallest difference, of 1, between the colors of strokes and background

ORIENTATION = 0x0112  # EXIF tag
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """The first image of an image file.

    Attributes:
      image: the image, of mode L or RGB, upright and opaque.
      has_more: whether the file contains further images, such as an animation or a document of
        several pages.
    """

    image: Image.Image
    has_more: bool


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Returns the suffixes, in lower case, of the files that the installed Pillow can read."""
    readable = (*_formats(), "MPO")  # MPO is JPEG by its content
    return frozenset(suffix for suffix, name in Image.registered_extensions().items()
                     if name in readable or name in FORMATS_BY_NAME)


def read_picture(path: Path, longest: int | None = None) -> Picture:
    """Reads the first image of an image file.

    The image may be grayscale or color, with 1 to 16 bits or floating-point values. Values of more
    than 8 bits are scaled so that the lowest is black and the highest white; values that are not
    finite are replaced by the median of the others. The EXIF orientation is applied. Transparent
    parts are filled with the most common color of the image. If the opaque part has only one
    color, or most of the image is transparent, the transparent parts are filled with black behind
    light strokes and with white behind dark strokes.

    Args:
      path: the path of the file.
      longest: the maximum length of the longer side in pixels; None keeps the size.

    Raises:
      FlaxdigitsError: if the file does not exist or is not a regular file, or if the image is
        damaged, completely transparent, or larger than `PIL.Image.MAX_IMAGE_PIXELS` (89 million
        pixels).
    """
    try:
        _check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of metadata, palettes and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_formats_for(path)) as image:
                return Picture(_make_upright_and_opaque(image, longest), _has_more(image))
    except FlaxdigitsError:
        raise
    except Exception as error:  # Pillow's readers raise undocumented types
        raise FlaxdigitsError(
            f"{path}: cannot be read as an image ({_reason(path, error)}); repair or remove it"
        ) from error


def read_photo(path: Path) -> np.ndarray:
    """Returns the pixels of the image of `read_picture`, at most 1,024 high and wide.

    Returns:
      [height, width, 3] float32, 0 to 1.

    Raises:
      FlaxdigitsError: as in `read_picture`.
    """
    return to_rgb(read_picture(path, LONGEST).image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Converts an image of mode L or RGB to an array, at most 1,024 high and wide.

    Returns:
      [height, width, 3] float32, 0 to 1.
    """
    image = image.convert("RGB")
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    return np.asarray(image, np.float32) / 255


@functools.cache
def _formats() -> tuple[str, ...]:
    """Returns those `FORMATS` that the installed Pillow supports."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _formats_for(path: Path) -> tuple[str, ...]:
    formats = _formats()
    named = Image.registered_extensions().get(path.suffix.lower())
    return (*formats, named) if named in FORMATS_BY_NAME else formats


def _check_regular(path: Path) -> None:
    """Raises FlaxdigitsError unless the path is a regular file: opening a FIFO may never return."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise FlaxdigitsError(f"{path}: no such file; check the path") from error
    if stat.S_ISDIR(mode):
        raise FlaxdigitsError(f"{path}: is a folder; name its files, as in 'folder/*.png'")
    if not stat.S_ISREG(mode):
        raise FlaxdigitsError(f"{path}: is not a regular file; name an image file")


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"larger than the supported {Image.MAX_IMAGE_PIXELS} pixels"
    if isinstance(error, Image.UnidentifiedImageError):
        with path.open("rb") as file:
            start = file.read(32)
        if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
            return NEED_HEIF
        if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"):
            return "AVIF needs Pillow 11.3 or later: pip install --upgrade pillow"
        return "of an unsupported format" if start else "the file is empty"
    return " ".join(str(error).split()) or type(error).__name__


def _has_more(image: Image.Image) -> bool:
    # Many phones write MPO files, whose further images are other views of the first.
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def _make_upright_and_opaque(image: Image.Image, longest: int | None) -> Image.Image:
    """Returns the image in mode L or RGB, rotated by its EXIF orientation.

    Transparent parts are filled. The longer side is at most `longest` pixels; None keeps the size.
    """
    if longest is not None:
        image.draft("RGB", (longest, longest))  # decodes a large JPEG at a lower resolution
    image.load()
    transposition = TRANSPOSITIONS.get(_orientation(image))
    if image.mode.startswith(("I", "F")):  # I, I;16, F: more than 8 bits
        image = _scale_values(image)
    elif "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    if longest is not None:
        image.thumbnail((longest, longest), Image.Resampling.BOX)
    if image.mode == "RGBA":
        image = _fill_transparent(image)
    return image if transposition is None else image.transpose(transposition)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata; the pixels may be intact
        return 1


def _scale_values(image: Image.Image) -> Image.Image:
    """Scales values of an unknown range linearly, so that the lowest is 0 and the highest 255."""
    values = np.asarray(image, np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no pixel has a finite value")
    values = np.where(finite, values, np.median(values[finite]))
    low, high = values.min(), values.max()
    # Both are halved, since their difference may overflow.
    fraction = (values / 2 - low / 2) / max(high / 2 - low / 2, np.finfo(np.float64).tiny)
    return Image.fromarray((fraction * 255).round().astype(np.uint8))


def _fill_transparent(image: Image.Image) -> Image.Image:
    """Composites an RGBA image onto a background on which its strokes are visible."""
    pixels = np.asarray(image, np.float32) / 255
    alpha = pixels[..., 3]
    visible = pixels[alpha > 0.5, :3]
    if not len(visible):
        raise ValueError("it is completely transparent")
    ground = np.median(visible, axis=0)
    differs = np.abs(visible - ground).max(axis=1) > SAME_COLOR
    if alpha.mean() <= 0.5 or not differs.any():
        ground = np.full(3, visible.mean() < 0.5)
    opaque = Image.new("RGBA", image.size, (*(ground * 255).round().astype(int).tolist(), 255))
    opaque.alpha_composite(image)
    return opaque.convert("RGB")
