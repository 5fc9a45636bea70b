"""The idx format of MNIST's files: a magic number, the dimensions, then the bytes.

Described at http://yann.lecun.com/exdb/mnist: two zero bytes, 0x08 for unsigned bytes, the number
of dimensions, then each dimension as a big-endian 32-bit integer.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from flaxdigits.errors import FlaxdigitsError

_UNSIGNED_BYTE = 0x08
_LARGEST = 1 << 31  # bytes; it has to fit in memory several times


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of an idx file of unsigned bytes, gzipped if its name ends in .gz.

    Returns: uint8, with as many dimensions as asked for.
    Raises:
      FlaxdigitsError: the file is missing, no idx file of that many dimensions, cut short, or
        longer than its header says.
    """
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rb") as file:
            magic = file.read(4)
            if magic != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
                raise FlaxdigitsError(
                    f"{path}: not an idx file of unsigned bytes in {dimensions} dimensions "
                    f"(it starts with {magic.hex() or 'nothing'}); get the file anew")
            header = file.read(4 * dimensions)
            if len(header) < 4 * dimensions:
                raise FlaxdigitsError(f"{path}: cut short within its header; get the file anew")
            shape = np.frombuffer(header, ">u4").tolist()
            expected = math.prod(shape)
            if expected > _LARGEST:
                raise FlaxdigitsError(
                    f"{path}: its header says {expected} bytes, and at most {_LARGEST} are read; "
                    "get the file anew")
            content = file.read(expected + 1)  # never more than the header says, and one to tell
    except (OSError, EOFError, zlib.error) as error:
        raise FlaxdigitsError(f"{path}: cannot be read ({error}); get the file anew") from error
    if len(content) != expected:
        held = "more than that" if len(content) > expected else f"only {len(content)}"
        raise FlaxdigitsError(
            f"{path}: its header says {expected} bytes and it holds {held}; get the file anew")
    return np.frombuffer(content, np.uint8).reshape(shape)
