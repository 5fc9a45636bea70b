"""What the drawing functions return."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DrawnImages:
    """Drawn characters in the order of the real set.

    Attributes:
        images: [n, height, width] uint8, bright on black.
        labels: [n] int32, the class.
        writers: [n] int32 from 1, or None where the real set does not name them.
        samples: [n] int32 from 1, the writer's how-manieth drawing of the character, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    writers: np.ndarray | None = None
    samples: np.ndarray | None = None
