"""A data set in memory: loaded by the name that the config has."""

import dataclasses
import functools
import hashlib
import logging
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flaxdigits.config import DataConfig
from flaxdigits.data.arrays import DataArrays
from flaxdigits.data.builders import BUILDERS, DigitsBuilder
from flaxdigits.data.custom import read_custom
from flaxdigits.data.examples import fingerprint
from flaxdigits.data.fetch import FetchError
from flaxdigits.data.framing import Framing, measure_framing
from flaxdigits.data.index_file import IndexFile, read_index_file
from flaxdigits.data.tfds_builders import read_tfds
from flaxdigits.datasets import TFDS
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user
from flaxdigits.progress import NO_PROGRESS, Progress

XLA_ALIGNMENT = 64  # bytes; XLA copies arrays that do not start at a multiple of it

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataLocations:
    """Where to look for data; never part of a config.

    Attributes:
      raw_data_dir: the folder of the raw files; None downloads them.
      data_dir: the folder of prepared data; None is that of TFDS_DATA_DIR, else
        ~/tensorflow_datasets.
      source: "real" refuses synthetic data, "drawn" requires them, "auto" falls back on them.
    """

    raw_data_dir: Path | None = None
    data_dir: Path | None = None
    source: Literal["auto", "real", "drawn"] = "auto"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """All examples of a data set in its raw order, all official parts one after another.

    Attributes:
      name: as in `DataConfig.dataset`.
      source: "real" or "drawn" (synthetic).
      class_names: in the order of the labels.
      images: [n, height, width, channels] uint8, read-only.
      labels: [n] int32.
      writers: [n] int32, who wrote each image, or another group; None if unknown.
      samples: [n] int32, the number of the sample by its writer; None if unknown.
      official_train: the number of examples in the official training part, which come first; None
        without a test part.
      fingerprint: SHA-256, in hex, over the bytes of images and labels and, of MNIST and Chinese
        MNIST, of the writers.
      validation: the rows of the validation part that the data set itself has, between its
        training and its test part.
      index_file: the parts of the `indices` split.
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

    def identity(self) -> dict[str, Any]:
        """Returns what identifies the data, as JSON values.

        `dataset`, `source`, `fingerprint` and, with an index file, the digest of its `indices`; of
        custom data also what the fingerprint does not cover: `class_names`, `official_train`,
        the number of `validation` images, the `image_shape` and a digest of the `writers`.
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
        """Returns the identity and, of grey custom data, their `framing`, as JSON values.

        They suffice to use a trained network without its data.
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


def load_dataset(
    config: DataConfig, locations: DataLocations, progress: Progress = NO_PROGRESS
) -> Dataset:
    """Reads the data set that `config` names, and its index file.

    With source "auto", the first of these that there is: a prepared copy, the raw files in
    `raw_data_dir` (if one is given they must be there), a download, synthetic data (with a
    warning).

    Args:
      config: names the data set and its index file.
      locations: where to look for data.
      progress: is notified of downloading, generating, preparing and reading.

    Raises:
      FlaxdigitsError: files are missing, damaged or cannot be written; or source is "real" and
        there is no prepared copy, no `raw_data_dir` and no download.
    """
    if config.dataset in BUILDERS:
        return with_index_file(_published(config, locations, progress), config)
    if locations.source == "drawn":
        raise FlaxdigitsError(
            f"--data=synthetic: there are no synthetic data for data.dataset={config.dataset}; use "
            "mnist or chinese_mnist")
    with progress.stage(f"reading {config.folder or config.dataset}"):
        if config.dataset.startswith(TFDS):
            arrays = read_tfds(config.dataset.removeprefix(TFDS), _data_dir(locations))
        else:
            arrays = read_custom(config)
        return dataset_of_arrays(config, arrays)


def dataset_of_arrays(config: DataConfig, arrays: DataArrays) -> Dataset:
    """Returns custom data as the data set that `config` names, with its index file.

    Raises:
      FlaxdigitsError: if the index file is missing or does not fit the data.
    """
    if arrays.validation and config.split == "official":
        _log.warning("%s: its %d validation images are not used with data.split=official; "
                     "data.split=holdout validates on them", config.folder or config.dataset,
                     arrays.validation)
    dataset = Dataset(
        config.dataset, "real", arrays.class_names, _in_place(arrays.images), arrays.labels,
        arrays.writers, None, arrays.official_train,
        fingerprint(arrays.images, arrays.labels, None),
        range(arrays.train, arrays.train + arrays.validation) if arrays.validation else range(0))
    return with_index_file(dataset, config)


def with_index_file(dataset: Dataset, config: DataConfig) -> Dataset:
    """Returns the data set with the index file that `config.indices` names, or without one.

    Raises:
      FlaxdigitsError: if the file is missing or does not fit the data.
    """
    if config.indices is None and dataset.index_file is None:
        return dataset
    index_file = None
    if config.indices is not None:
        index_file = read_index_file(expand_user(config.indices), len(dataset.labels))
    return dataclasses.replace(dataset, index_file=index_file)


def _published(
    config: DataConfig, locations: DataLocations, progress: Progress
) -> Dataset:
    """Returns MNIST or Chinese MNIST; the sources are those of `load_dataset`."""
    if locations.source == "drawn":
        return _prepared(config.dataset, "drawn", locations, progress)
    try:
        return _prepared(config.dataset, "real", locations, progress)
    except FetchError as error:
        data_dir = _builder(config.dataset, "real", locations).data_dir_root
        tried = f"no prepared copy in {data_dir}, no --raw_data_dir, and {error}"
        if locations.source == "real":
            raise FlaxdigitsError(f"{config.dataset}: no real data: {tried}") from error
        _log.warning("%s: using SYNTHETIC data instead of the real data: %s", config.dataset, tried)
        return _prepared(config.dataset, "drawn", locations, progress)


def _builder(name: str, source: str, locations: DataLocations) -> DigitsBuilder:
    raw = locations.raw_data_dir
    return BUILDERS[name](
        config=source, data_dir=_data_dir(locations), raw_data_dir=raw and expand_user(raw))


def _data_dir(locations: DataLocations) -> Path:
    named = locations.data_dir or os.environ.get("TFDS_DATA_DIR")
    if named:
        return expand_user(named)
    try:
        return expand_user("~/tensorflow_datasets")
    except FlaxdigitsError as error:
        raise FlaxdigitsError("there is no home folder to store prepared data in: specify a "
                              "folder with --data_dir or TFDS_DATA_DIR") from error


def _prepared(name: str, source: str, locations: DataLocations, progress: Progress) -> Dataset:
    builder = _builder(name, source, locations)
    builder.progress = progress
    with progress.stage(f"preparing {name}"):
        builder.download_and_prepare()
    with progress.stage(f"reading {name}"):
        read = builder.read()
        return Dataset(
            name, source, builder.class_names, _in_place(read.images), read.labels, read.writers,
            read.samples, builder.official_train,
            fingerprint(read.images, read.labels, read.writers))


def _in_place(images: np.ndarray) -> np.ndarray:
    """Returns a read-only copy that JAX uses as a CPU array without copying it again.

    Args:
      images: [n, height, width] or [n, height, width, channels] uint8.

    Returns:
      [n, height, width, channels] uint8.
    """
    memory = np.empty(images.nbytes + XLA_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % XLA_ALIGNMENT
    placed = memory[start:start + images.nbytes].reshape(images.shape)
    placed[...] = images
    placed.flags.writeable = False
    return placed[..., None] if images.ndim == 3 else placed
