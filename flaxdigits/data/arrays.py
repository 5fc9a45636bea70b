"""Images and labels as arrays, which are checked: the common format of all custom data sets."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxdigits.errors import FlaxdigitsError, quoted


@dataclasses.dataclass(frozen=True)
class DataArrays:
    """Images with labels: the training part, then a validation and a test part, if any.

    The arrays are checked when the object is created.

    Attributes:
      images: [n, height, width] or [n, height, width, channels] uint8.
      labels: [n] integers: indices into `class_names`. Without `class_names`, the classes are the
        distinct labels of the training part in ascending order, and their names are the numbers.
        The object contains the labels as int32 indices.
      class_names: the names of the classes in the order of the labels.
      writers: [n] integers, the writer of each image, or any other group that the `writers` split
        must not divide; None if unknown.
      train: the number of training examples; None: all examples that are not for validation.
      validation: the number of validation examples; the examples after them are the test part.

    Raises:
      FlaxdigitsError: if an array has the wrong type, shape or length; if a label has no class
        name, or without `class_names` does not occur in the training part; if class names are empty
        or not unique; if the training images are all of one class; or if `train` or `validation` is
        not a possible number of examples. The message names the argument.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str] | None = None
    writers: np.ndarray | None = None
    train: int | None = None
    validation: int = 0

    def __post_init__(self) -> None:
        images = as_array(self.images, "images")
        if images.dtype != np.uint8:
            raise FlaxdigitsError(not_uint8_message(images.dtype))
        if images.ndim not in (3, 4) or 0 in images.shape:
            raise FlaxdigitsError(
                "images must be of shape [n, height, width] or [n, height, width, channels], got "
                f"{list(images.shape)}")
        labels = _integers(self.labels, "labels", len(images))
        train = len(images) - self.validation if self.train is None else self.train
        for name, count, least in (("train", train, 1), ("validation", self.validation, 0)):
            is_count = isinstance(count, int | np.integer) and not isinstance(count, bool)
            if not is_count or not least <= count <= len(images):
                raise FlaxdigitsError(
                    f"{name} must be a number of examples from {least} to {len(images)}, got "
                    f"{quoted(count)}")
        if train + self.validation > len(images):
            raise FlaxdigitsError(
                f"train + validation must not exceed the number of examples, {len(images)}, got "
                f"{train} + {self.validation}")
        class_names, labels = _classes(self.class_names, labels, int(train))
        values: dict[str, Any] = {
            "images": images, "labels": labels, "class_names": class_names, "train": int(train),
            "validation": int(self.validation)}
        if self.writers is not None:
            values["writers"] = _int32(_integers(self.writers, "writers", len(images)), "writers")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def official_train(self) -> int | None:
        """The number of training examples; None without a test part."""
        return self.train if self.train + self.validation < len(self.labels) else None


def arrays_of(source: str | Path, *arrays: Any, **options: Any) -> DataArrays:
    """Returns `DataArrays(*arrays, **options)`.

    Raises:
      FlaxdigitsError: as in `DataArrays`; the message begins with `source`, the path of the data.
    """
    try:
        return DataArrays(*arrays, **options)
    except FlaxdigitsError as error:
        raise FlaxdigitsError(f"{source}: {error}") from error


def as_array(value: Any, name: str) -> np.ndarray:
    """Converts a value to an array. Raises FlaxdigitsError if that fails."""
    try:
        return np.asarray(value)
    except Exception as error:  # NumPy raises several types, for instance for ragged lists
        raise FlaxdigitsError(f"{name} must be an array: {error}") from error


def _integers(value: Any, name: str, count: int) -> np.ndarray:
    array = as_array(value, name)
    if array.dtype.kind not in "iu":
        raise FlaxdigitsError(f"{name} must be integers, got {array.dtype}")
    if array.shape != (count,):
        raise FlaxdigitsError(
            f"{name} must be of shape [{count}], one for each image, got {list(array.shape)}")
    return array


def _int32(array: np.ndarray, name: str) -> np.ndarray:
    if array.min() < -2**31 or array.max() >= 2**31:
        raise FlaxdigitsError(f"{name} must fit in an int32, got {array.min()} to {array.max()}")
    return array.astype(np.int32)


def _classes(
    class_names: Any, labels: np.ndarray, train: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names of the classes, and the labels as indices into them: [n] int32.

    Args:
      class_names: the names of the classes; None: the distinct training labels.
      labels: [n] integers.
      train: the number of training examples, which come first.

    Raises:
      FlaxdigitsError: if `class_names` is None and a label does not occur in the training part; if
        the names are invalid, not unique, or fewer than the labels need; or if the training images
        are all of one class.
    """
    known = np.unique(labels[:train])
    if class_names is None:
        unknown = np.setdiff1d(labels, known)
        if unknown.size:
            raise FlaxdigitsError(
                f"a validation or test image has the label {unknown[0]}, which no training image "
                "has; add training images with this label, or remove the images with this label "
                "from the other parts")
        names = tuple(map(str, known.tolist()))
        labels = np.searchsorted(known, labels)
    else:
        names = tuple(np.atleast_1d(as_array(class_names, "class_names")).tolist())
        if not all(isinstance(name, str) and name and _is_encodable(name) for name in names):
            raise FlaxdigitsError(
                "class_names must be strings that are not empty and can be encoded as UTF-8, got "
                f"{quoted(list(names))}")
        if len(set(names)) < len(names):
            raise FlaxdigitsError(f"class_names must be unique, got {quoted(list(names))}")
        if labels.min() < 0 or labels.max() >= len(names):
            raise FlaxdigitsError(
                f"labels must be indices into the {len(names)} class_names, 0 to {len(names) - 1}, "
                f"got {labels.min()} to {labels.max()}")
    if len(known) < 2:
        raise FlaxdigitsError(
            f"all training images are of one class, {names[int(labels[0])]}; there is nothing to "
            "classify: add images of at least one other class")
    return names, labels.astype(np.int32)


def _is_encodable(text: str) -> bool:
    """Returns whether a string can be encoded as UTF-8, which a lone surrogate prevents."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def not_uint8_message(dtype: np.dtype) -> str:
    """Returns the error message for images that are not uint8."""
    integer_hint = "; scale the values to 0 to 255, and pass images.astype(numpy.uint8)"
    hints = {"f": "; for values 0 to 1, pass (255 * images).astype(numpy.uint8)",
             "i": integer_hint, "u": integer_hint}
    return f"images must be uint8, with values 0 to 255, got {dtype}{hints.get(dtype.kind, '')}"
