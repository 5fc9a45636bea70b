"""Data of one's own: idx files as MNIST's, or a folder of images by class."""

import dataclasses
from pathlib import Path

import numpy as np

from flaxdigits.config import DataConfig
from flaxdigits.data.examples import Examples
from flaxdigits.data.idx_folder import read_idx_folder
from flaxdigits.data.image_folder import read_image_folder
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user


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

    "idx_files": as `read_idx_folder` says.

    "image_folder": as `flaxdigits.data.image_folder.read_image_folder` says.

    Raises:
      FlaxdigitsError: the folder or a file is missing, damaged or of another kind, or the training
        images have fewer than two classes.
    """
    folder = expand_user(config.folder or "").resolve()
    if not config.folder or not folder.is_dir():
        raise FlaxdigitsError(
            f"data.folder={config.folder}: no such folder; data.dataset={config.dataset} reads "
            "one of your own")
    own = (OwnData(*read_idx_folder(folder)) if config.dataset == "idx_files"
           else _image_folder(folder, config.image_size))
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
