"""A data set in small, with a builder like the real ones; subprocesses of tests import it too."""

import numpy as np

from flaxdigits.data.builders import DigitsBuilder
from flaxdigits.data.examples import Examples
from flaxdigits.progress import NO_PROGRESS, Progress

TRAIN, COUNT = 1_000, 1_500


class TinyDigits(DigitsBuilder):
    """Digits in small."""

    class_names = ("a", "b")
    image_size = (4, 3)
    official_train = TRAIN
    has_writers = True

    @staticmethod
    def draw(seed: int, progress: Progress = NO_PROGRESS) -> Examples:
        """The same pixels for every seed, all rows different from their neighbors."""
        rows = np.arange(COUNT, dtype=np.int32)
        pixels = (rows[:, None] * 7 + np.arange(12)).astype(np.uint8).reshape(-1, 4, 3)
        return Examples(pixels, rows % 2, rows // 300, rows % 300)
