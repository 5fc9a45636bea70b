"""Digests that show whether the data that are read from a disk are those that were written.

They detect damage, not forgery: the digests are fast rather than cryptographic, and whoever changes
a file can change its digest too.
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

    The digest is XXH3 with 128 bits, which is about as fast as memory can be read.
    """
    digest = xxhash.xxh3_128(f"{array.dtype.name} {list(array.shape)}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def describe_arrays(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns `dtype`, `shape` and `digest` of each array, under its name, as JSON values.

    Args:
      arrays: NumPy arrays, or JAX arrays that are replicated on every device.
    """
    whole = {name: np.asarray(array.addressable_data(0) if isinstance(array, jax.Array) else array)
             for name, array in arrays.items()}
    return {name: {"dtype": array.dtype.name, "shape": list(array.shape),
                   "digest": array_digest(array)} for name, array in whole.items()}


def json_digest(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, which does not depend on the order of keys."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
