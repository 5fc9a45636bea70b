"""The return type of the functions that generate synthetic data."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DrawnImages:
    """Synthetic images in the order of the real data set.

    Attributes:
        images: [n, height, width] uint8, bright on black.
        labels: [n] int32.
        writers: [n] int32, the writer of each image, from 1; None if the real data set has no
            writers.
        samples: [n] int32, the number of each image within its writer and class, from 1; None if
            the real data set has no writers.
    """

    images: np.ndarray
    labels: np.ndarray
    writers: np.ndarray | None = None
    samples: np.ndarray | None = None
