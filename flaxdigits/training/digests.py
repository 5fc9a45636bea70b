"""Digests that show whether what is read back from a disk is what was written.

They find damage, not forgery: they are made for speed, and keep nobody from changing a file and
its digest together.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xxhash


def array_digest(array: np.ndarray) -> str:
    """Returns 32 hexadecimal digits that depend on the dtype, the shape and every bit of an array.

    They are those of XXH3 with 128 bits, at about the speed of memory.
    """
    digest = xxhash.xxh3_128(f"{array.dtype.name} {list(array.shape)}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


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
