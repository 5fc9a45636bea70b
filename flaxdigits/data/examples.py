"""What every source of data hands over: arrays in the raw order, nothing prepared yet."""

import dataclasses
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Examples:
    """Decoded images and what is known about them, row by row.

    images: [n, height, width] uint8
    labels: [n] int32
    writers, samples: [n] int32, or None where the data set does not tell
    """

    images: np.ndarray
    labels: np.ndarray
    writers: np.ndarray | None = None
    samples: np.ndarray | None = None


def fingerprint(images: np.ndarray, labels: np.ndarray, writers: np.ndarray | None) -> str:
    """Returns the SHA-256, in hex, of images (uint8), labels and writers (little-endian int32)."""
    digest = hashlib.sha256(np.ascontiguousarray(images, np.uint8))
    for column in (labels, writers):
        if column is not None:
            digest.update(np.ascontiguousarray(column, "<i4"))
    return digest.hexdigest()
