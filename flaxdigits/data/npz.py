"""Reads NumPy's .npz files without pickle: single arrays, or images with labels."""

import io
import logging
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from flaxdigits.data.archives import ArchiveError, check_size, read_zip_entry, zip_entries
from flaxdigits.data.arrays import DataArrays, arrays_of
from flaxdigits.data.files import open_regular
from flaxdigits.datasets import SPLITS
from flaxdigits.errors import FlaxdigitsError

_LARGEST = 1 << 31  # bytes of an array; several copies must fit in memory
_PREFIXES = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
_CONTENTS = {  # the possible names of the arrays of a part, by content
    "images": ("{part}_images", "x_{part}"),
    "labels": ("{part}_labels", "y_{part}"),
    "writers": ("{part}_writers", "{part}_groups"),
}

_log = logging.getLogger(__name__)


def read_npz(path: Path) -> DataArrays:
    """Reads images and labels from an .npz file.

    The file contains either `images` and `labels`, or these arrays for each part: `train_images`
    and `train_labels`, or `x_train` and `y_train` as in Keras's mnist.npz. The parts `test` and
    `validation` (or `val`) are optional. Images are [n, height, width] or
    [n, height, width, channels] uint8, and labels [n] or [n, 1] integers. `class_names` are
    optional, as are `writers` (or `groups`, `train_writers`, ...), [n] integers.

    Raises:
      FlaxdigitsError: if the file is missing, damaged or too large, contains Python objects, lacks
        an array, or an array has the wrong type or shape.
    """
    names = npz_names(path)
    if "images" in names or "labels" in names:
        found = {"images": "images", "labels": "labels", "writers": "writers"}
        if "groups" in names:
            found["writers"] = "groups"
        parts = {"train": {what: name for what, name in found.items() if name in names}}
    else:
        parts = {part: found for part in SPLITS if (found := _find_part(part, names))}
    if not parts.get("train", {}).keys() >= {"images", "labels"}:
        raise FlaxdigitsError(
            f"{path}: lacks images and labels (or train_images and train_labels, or x_train and "
            f"y_train); it contains {', '.join(sorted(names)) or 'nothing'}")
    for part, found in parts.items():
        for content in ("images", "labels"):
            if content not in found:
                raise FlaxdigitsError(
                    f"{path}: has {next(iter(found.values()))} but lacks {part}_{content}")
        if ("writers" in found) != ("writers" in parts["train"]):
            raise FlaxdigitsError(f"{path}: either all parts or none must have writers; {part} and "
                                  "train differ")
    wanted = [name for found in parts.values() for name in found.values()]
    if "class_names" in names:
        wanted.append("class_names")
    if unread := sorted(names - set(wanted)):
        _log.warning("%s: ignored arrays: %s", path, ", ".join(unread))
    arrays = read_npz_arrays(path, wanted)
    return _join(path, {part: {content: arrays[name] for content, name in found.items()}
                        for part, found in parts.items()}, arrays.get("class_names"))


def npz_names(path: Path) -> set[str]:
    """Returns the names of the arrays in an .npz file.

    Raises:
      FlaxdigitsError: if the file is missing or damaged.
    """
    with _NpzFile(path) as file:
        return set(file.entries)


def read_npz_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads arrays from an .npz file without unpickling anything.

    The size that the file declares is checked before an array is decompressed.

    Raises:
      FlaxdigitsError: if the file or an array is missing or damaged, or an array is larger than 2
        GiB or contains Python objects.
    """
    with _NpzFile(path) as file:
        return {name: file.read(name) for name in names}


class _NpzFile:
    """An open .npz file; its error messages name the path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "_NpzFile":
        try:
            self._file: BinaryIO = open_regular(self._path)
        except OSError as error:
            raise FlaxdigitsError(
                f"{self._path}: cannot be read ({error.strerror or error}); name an .npz file"
            ) from error
        try:
            self.entries = {entry.filename.removesuffix(".npy"): entry
                            for entry in zip_entries(self._file)}
        except ArchiveError as error:
            self._file.close()
            raise FlaxdigitsError(
                f"{self._path}: not an .npz file, or damaged ({error}); numpy.savez writes one"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, name: str) -> np.ndarray:
        """Returns an array; see `read_npz_arrays`."""
        if name not in self.entries:
            raise FlaxdigitsError(f"{self._path}: lacks the array {name}")
        entry = self.entries[name]
        try:
            check_size(name, entry.file_size, _LARGEST)
        except ArchiveError as error:
            raise FlaxdigitsError(
                f"{self._path}: too large ({error}); save fewer or smaller images") from error
        try:
            content = read_zip_entry(self._file, entry)
            if zlib.crc32(content) != entry.CRC:
                raise ArchiveError(f"{name}: checksum mismatch")
            return _parse(content)
        except (ArchiveError, OSError) as error:
            raise FlaxdigitsError(
                f"{self._path}: damaged ({error}); write it again with numpy.savez") from error
        except ValueError as error:
            raise FlaxdigitsError(f"{self._path}: {name}: {error}") from error


def _parse(content: bytes) -> np.ndarray:
    """Returns the array in the content of an .npy file.

    Raises:
      ValueError: if the header is damaged or does not match the number of bytes, or the array
        contains Python objects.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                       (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, is_fortran, dtype = read_header(file)
    except Exception as error:  # NumPy raises several types for a damaged header
        raise ValueError("not an array as numpy.savez writes it") from error
    if dtype.hasobject:
        raise ValueError("an array of Python objects is not supported: save numbers or strings, "
                         "such as numpy.array(names, dtype=str)")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"its header declares {list(shape)} of {dtype}, but it has "
                         f"{len(content) - file.tell()} bytes")
    array = np.frombuffer(content, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if is_fortran else "C")


def _find_part(part: str, names: set[str]) -> dict[str, str]:
    """Returns the names of the arrays of a part by content: images, labels and writers."""
    return {content: name for content, patterns in _CONTENTS.items()
            for prefix in _PREFIXES[part] for pattern in patterns
            if (name := pattern.format(part=prefix)) in names}


def _join(
    path: Path, parts: dict[str, dict[str, np.ndarray]], class_names: np.ndarray | None
) -> DataArrays:
    """Concatenates the arrays of the parts, and checks them."""
    for part, arrays in parts.items():
        if arrays["labels"].ndim == 2 and arrays["labels"].shape[1] == 1:  # as in MedMNIST
            arrays["labels"] = arrays["labels"][:, 0]
        images, labels = arrays["images"], arrays["labels"]
        if not images.ndim or labels.shape != images.shape[:1]:
            raise FlaxdigitsError(
                f"{path}: the labels of {part} must be of shape [n] for images of shape [n, ...], "
                f"got {list(labels.shape)} and {list(images.shape)}")
        if images.shape[1:] != parts["train"]["images"].shape[1:]:
            raise FlaxdigitsError(
                f"{path}: the images of {part} are {list(images.shape[1:])} and those of train "
                f"{list(parts['train']['images'].shape[1:])}; all must have the same shape")
    joined = {content: np.concatenate([arrays[content] for arrays in parts.values()])
              for content in parts["train"]}
    counts = {part: len(arrays["labels"]) for part, arrays in parts.items()}
    return arrays_of(
        path, joined["images"], joined["labels"], class_names, joined.get("writers"),
        counts["train"], counts.get("validation", 0))
