"""Reads files in the idx format of MNIST: a magic number, the dimensions, then the values.

The format is described at http://yann.lecun.com/exdb/mnist: two zero bytes, the type of the values
(0x08 for unsigned bytes, 0x0c for 32-bit integers), the number of dimensions, then each dimension
as a big-endian 32-bit integer.
"""

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np

from flaxdigits.data.files import open_regular
from flaxdigits.errors import FlaxdigitsError

UNSIGNED_BYTES = np.dtype(np.uint8)
INTEGERS = np.dtype(">i4")

_CODES = {UNSIGNED_BYTES: 0x08, INTEGERS: 0x0C}
_NAMES = {UNSIGNED_BYTES: "unsigned bytes", INTEGERS: "32-bit integers"}
_LARGEST = 1 << 31  # bytes; several copies must fit in memory
_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(
    path: Path, dimensions: int, dtype: np.dtype = UNSIGNED_BYTES, largest: int = _LARGEST
) -> np.ndarray:
    """Reads an idx file; a gzipped one is recognized by its first bytes, not by its name.

    Args:
      path: the path of the file.
      dimensions: the expected number of dimensions.
      dtype: the expected type of the values, UNSIGNED_BYTES or INTEGERS.
      largest: the maximum size of the values in bytes.

    Returns:
      An array of this type and number of dimensions.

    Raises:
      FlaxdigitsError: if the file is missing, not a regular file, not an idx file of this type and
        number of dimensions, truncated, longer than its header declares, or larger than `largest`.
    """
    try:
        with open_regular(path) as raw:
            if raw.peek(2)[:2] != _GZIP_MAGIC:
                return _parse(raw, path, dimensions, dtype, largest)
            with gzip.GzipFile(fileobj=raw) as file:
                return _parse(file, path, dimensions, dtype, largest)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise FlaxdigitsError(
            f"{path}: cannot be read ({reason}); download the file again") from error


def content_sha256(array: np.ndarray) -> str:
    """Returns the hexadecimal SHA-256 of the decompressed idx file that contains the array.

    Args:
      array: unsigned bytes, of any shape.
    """
    shape = np.array(array.shape, ">u4").tobytes()
    digest = hashlib.sha256(bytes([0, 0, _CODES[UNSIGNED_BYTES], array.ndim]) + shape)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _parse(
    file: io.BufferedIOBase, path: Path, dimensions: int, dtype: np.dtype, largest: int
) -> np.ndarray:
    magic = file.read(4)
    if magic != bytes([0, 0, _CODES[dtype], dimensions]):
        found = f"it starts with {magic.hex()}" if magic else "the file is empty"
        raise FlaxdigitsError(
            f"{path}: not an idx file of {_NAMES[dtype]} in {dimensions} dimensions ({found}); "
            "download the file again")
    header = file.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise FlaxdigitsError(f"{path}: truncated within its header; download the file again")
    shape = np.frombuffer(header, ">u4").tolist()
    expected = math.prod(shape) * dtype.itemsize
    if expected > largest:
        raise FlaxdigitsError(
            f"{path}: its header declares {expected} bytes, and at most {largest} are supported; "
            "download the file again")
    if not expected:
        raise FlaxdigitsError(
            f"{path}: its header declares the empty shape {' x '.join(map(str, shape))}; "
            "download the file again")
    content = bytearray()  # grows with the content of the file, not with the size in its header
    while len(content) <= expected:
        chunk = file.read(min(_CHUNK, expected + 1 - len(content)))  # one byte more than declared
        if not chunk:
            break
        content += chunk
    if len(content) != expected:
        found = "more than that" if len(content) > expected else f"only {len(content)}"
        raise FlaxdigitsError(
            f"{path}: its header declares {expected} bytes, but it has {found}; download the file "
            "again")
    return np.frombuffer(content, dtype).reshape(shape)
