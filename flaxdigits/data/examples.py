"""The examples of MNIST or Chinese MNIST as arrays, in the order of the raw files."""

import dataclasses
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Examples:
    """Decoded images with their labels.

    Attributes:
      images: [n, height, width] uint8.
      labels: [n] int32.
      writers: [n] int32, the writer of each image; None if unknown.
      samples: [n] int32, the number of each image within its writer and class, from 1; None if
        unknown.
    """

    images: np.ndarray
    labels: np.ndarray
    writers: np.ndarray | None = None
    samples: np.ndarray | None = None


def fingerprint(images: np.ndarray, labels: np.ndarray, writers: np.ndarray | None) -> str:
    """Returns the hexadecimal SHA-256 of images (uint8), labels and writers (little-endian int32).
    """
    digest = hashlib.sha256(np.ascontiguousarray(images, np.uint8).data)
    for column in (labels, writers):
        if column is not None:
            digest.update(np.ascontiguousarray(column, "<i4").data)
    return digest.hexdigest()
