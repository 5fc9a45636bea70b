"""All examples of a data set in memory, with what identifies them."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np

from flaxdigits.data.builders import BUILDERS
from flaxdigits.data.framing import Framing, measure_framing
from flaxdigits.data.index_file import IndexFile
from flaxdigits.datasets import HAVE_SYNTHETIC


@dataclasses.dataclass(frozen=True, repr=False)
class LabeledImages:
    """All examples of a data set: its training part, then its validation and its test part, if any.

    Attributes:
      name: the name of the data set (`DataConfig.dataset`).
      source: "real" or "drawn" (synthetic).
      class_names: the names of the classes in the order of the labels.
      images: [n, height, width, channels] uint8, read-only.
      labels: [n] int32.
      writers: [n] int32, the writer of each image, or another group; None if unknown.
      samples: [n] int32, the number of each image within its writer and class, from 1; None if
        unknown.
      official_train: the number of examples in the official training part; None if there is no
        official test part.
      fingerprint: the hexadecimal SHA-256 of the images, the labels and, for MNIST and Chinese
        MNIST, the writers.
      validation: the rows of the official validation part, between the training and the test part.
      index_file: the parts of the `indices` split; None for other splits.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    writers: np.ndarray | None
    samples: np.ndarray | None
    official_train: int | None
    fingerprint: str
    validation: range = range(0)
    index_file: IndexFile | None = None

    def __repr__(self) -> str:
        """Returns a line without the arrays."""
        source = f" ({self.source})" if self.name in HAVE_SYNTHETIC else ""
        return (f"<{type(self).__name__} {self.name}{source}: {len(self.labels)} images of "
                f"{self.size()}, {len(self.class_names)} classes>")

    def identity(self) -> dict[str, Any]:
        """Returns the JSON values that identify the data.

        These are `dataset`, `source`, `fingerprint` and, with an index file, `indices`, its digest.
        For custom data there are also values that the fingerprint does not cover: `class_names`,
        `official_train`, `validation` (the number of images), `image_shape`, and `writers` (a
        digest).
        """
        values = {"dataset": self.name, "source": self.source, "fingerprint": self.fingerprint}
        if self.index_file is not None:
            values["indices"] = self.index_file.digest
        if self.name in BUILDERS:
            return values
        if self.writers is not None:
            values["writers"] = hashlib.sha256(self.writers.astype("<i4").tobytes()).hexdigest()
        return values | {
            "class_names": list(self.class_names), "official_train": self.official_train,
            "validation": len(self.validation), "image_shape": list(self.images.shape[1:])}

    def description(self) -> dict[str, Any]:
        """Returns the identity and, for grayscale custom data, the `framing`, as JSON values.

        A trained network can be used with these values, without the data.
        """
        if self.name in BUILDERS or self.images.shape[-1] > 1:
            return self.identity()
        return self.identity() | {"framing": dataclasses.asdict(self._framing)}

    def size(self) -> str:
        """Returns the size of an image for messages, such as 28x28 or 32x32x3."""
        shape = self.images.shape[1:]
        return "x".join(map(str, shape if shape[-1] > 1 else shape[:2]))

    @functools.cached_property
    def _framing(self) -> Framing:
        return measure_framing(self.images)
