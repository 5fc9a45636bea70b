"""Data of one's own: idx files as MNIST's, or a folder of images by class."""

import dataclasses
from pathlib import Path

import numpy as np

from flaxdigits.config import DataConfig
from flaxdigits.data.examples import Examples
from flaxdigits.data.idx import read_idx
from flaxdigits.data.image_folder import read_image_folder
from flaxdigits.errors import FlaxdigitsError


@dataclasses.dataclass(frozen=True)
class OwnData:
    """The examples of a folder, all parts one after another: train, validation, test.

    Attributes:
      examples: every example.
      class_names: by label.
      official_train: how many of the first rows are for training; None without a test part.
      validation: the rows that the folder itself sets apart for validation.
    """

    examples: Examples
    class_names: tuple[str, ...]
    official_train: int | None
    validation: range = range(0)


def read_own(config: DataConfig) -> OwnData:
    """Reads `config.folder`, which is laid out as `config.dataset` says.

    "idx_files": train-images-idx3-ubyte and train-labels-idx1-ubyte and, if there is a test part,
    t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or with .gz, as Fashion-MNIST
    and KMNIST come.

    "image_folder": as `flaxdigits.data.image_folder.read_image_folder` says.

    Raises:
      FlaxdigitsError: the folder or a file is missing, damaged or of another kind, or the training
        images have fewer than two classes.
    """
    folder = Path(config.folder or "").expanduser().resolve()
    if not config.folder or not folder.is_dir():
        raise FlaxdigitsError(
            f"data.folder={config.folder}: no such folder; data.dataset={config.dataset} reads "
            "one of your own")
    own = _idx_files(folder) if config.dataset == "idx_files" else _image_folder(
        folder, config.image_size)
    if len(np.unique(own.examples.labels[:own.official_train])) < 2:
        raise FlaxdigitsError(
            f"{folder}: all training images are of one class, {own.class_names[-1]}; there is "
            "nothing to tell apart: add images of at least one other class")
    return own


def _image_folder(folder: Path, image_size: int | None) -> OwnData:
    read = read_image_folder(folder, image_size)
    train, validation, test = (read.counts[part] for part in ("train", "validation", "test"))
    return OwnData(
        Examples(read.images, read.labels), read.class_names, train if test else None,
        range(train, train + validation))


def _idx_files(folder: Path) -> OwnData:
    parts = [_idx_part(folder, "train")]
    has_test = any(folder.glob("t10k-*"))
    if has_test:
        parts.append(_idx_part(folder, "t10k"))
    sizes = {images.shape[1:] for images, _ in parts}
    if len(sizes) > 1:
        raise FlaxdigitsError(
            f"{folder}: training images are {_size(parts[0][0])} and test images "
            f"{_size(parts[1][0])}; both must have one size")
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return OwnData(
        Examples(images, labels.astype(np.int32)),
        tuple(str(label) for label in range(int(labels.max()) + 1)),
        len(parts[0][0]) if has_test else None,
    )


def _idx_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images_path = _plain_or_gz(folder, f"{part}-images-idx3-ubyte")
    labels_path = _plain_or_gz(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if len(images) != len(labels) or not images.size:
        raise FlaxdigitsError(
            f"{labels_path}: {len(labels)} labels for {len(images)} images in "
            f"{images_path.name}; there must be as many of both, and some")
    return images, labels


def _plain_or_gz(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            return path
    raise FlaxdigitsError(
        f"{folder}: lacks {name} or {name}.gz, which data.dataset=idx_files reads")


def _size(images: np.ndarray | list[np.ndarray]) -> str:
    height, width = images[0].shape
    return f"{height}x{width}"
