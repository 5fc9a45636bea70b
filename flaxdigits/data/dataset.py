"""Loads the data set of a config into memory."""

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from flaxdigits.config import DataConfig, validate_data
from flaxdigits.data.arrays import DataArrays
from flaxdigits.data.builders import BUILDERS, DigitsBuilder
from flaxdigits.data.custom import read_custom
from flaxdigits.data.examples import fingerprint
from flaxdigits.data.fetch import FetchError
from flaxdigits.data.index_file import read_index_file
from flaxdigits.data.labeled_images import LabeledImages
from flaxdigits.data.splits import split_indices, splits_of
from flaxdigits.data.tfds_builders import read_tfds
from flaxdigits.datasets import TFDS, find_dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user
from flaxdigits.progress import NO_PROGRESS, Progress

XLA_ALIGNMENT = 64  # bytes; XLA copies arrays whose address is not a multiple of it

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataLocations:
    """The folders and the source of the data; they are not part of a config.

    Attributes:
      raw_data_dir: the folder of the raw files; None to download them.
      data_dir: the folder of prepared data; None: TFDS_DATA_DIR, else ~/tensorflow_datasets.
      source: "real" for real data, "drawn" for synthetic data, "auto" for synthetic data if there
        are no real data.
    """

    raw_data_dir: Path | None = None
    data_dir: Path | None = None
    source: Literal["auto", "real", "drawn"] = "auto"


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset(LabeledImages):
    """A data set: its labeled images, and the split schemes that divide them into parts."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the split schemes that the data set has: the values of `data.split`."""
        return splits_of(self)

    def split(
        self, name: str, *, fold: int = 0, folds: int = 10, seed: int = 0, stratify: bool = False,
        limit: int | None = None, indices: str | os.PathLike[str] | None = None,
        validation_fraction: float = 0.1, test_fraction: float = 0.1,
    ) -> dict[str, np.ndarray]:
        """Splits the examples as an experiment with `data.split=<name>` does.

        Args:
          name: one of `splits`, or `indices` with an index file.
          fold: the fold of `kfold` or `writers` that is the test part, as in `data.fold`.
          folds: the number of folds, as in `data.folds`.
          seed: the seed of a random split, as in `data.split_seed`.
          stratify: whether each class has the same share in every part, as in `data.stratify`.
          limit: the number of training examples to keep, as in `data.limit`; None: all.
          indices: the path of the index file of the split `indices`, as in `data.indices`.
          validation_fraction: the share of all examples for validation in the split `fractions`.
          test_fraction: the share of all examples for the test in the split `fractions`.

        Returns:
          The indices of the examples of each part, [n] int32: `train` and, if the split has them,
          `validation` and `test`.

        Raises:
          FlaxdigitsError: if the data set does not have the split, or an argument is invalid.
        """
        # These fields must have a value, which is not used: the data set is loaded already.
        required: dict[str, Any] = {
            field: "loaded" for field in find_dataset(self.name).required}
        config = validate_data(DataConfig(
            self.name, cast(Any, name), fold, folds, seed, stratify, validation_fraction,
            test_fraction, None if indices is None else os.fspath(indices), limit=limit,
            **required))
        return split_indices(config, with_index_file(self, config))


def load_dataset(
    config: DataConfig, locations: DataLocations, progress: Progress = NO_PROGRESS
) -> Dataset:
    """Loads the data set that `config` names, and its index file.

    With source "auto", MNIST and Chinese MNIST are loaded from the first available of: a prepared
    copy, the raw files in `raw_data_dir` (an error if it is set and lacks them), a download, and
    synthetic data (with a warning).

    Args:
      config: the config, which names the data set and its index file.
      locations: where to look for data.
      progress: is notified of downloading, generating, preparing and reading.

    Raises:
      FlaxdigitsError: if files are missing or damaged, or cannot be written; or if source is "real"
        and there is neither a prepared copy, nor a `raw_data_dir`, nor a successful download.
    """
    if config.dataset in BUILDERS:
        return with_index_file(_load_published(config, locations, progress), config)
    if locations.source == "drawn":
        raise FlaxdigitsError(
            f"data=synthetic: there are no synthetic data for data.dataset={config.dataset}; use "
            "mnist or chinese_mnist")
    with progress.stage(f"reading {config.folder or config.dataset}"):
        if config.dataset.startswith(TFDS):
            arrays = read_tfds(config.dataset.removeprefix(TFDS), _data_dir(locations))
        else:
            arrays = read_custom(config)
        return dataset_of_arrays(config, arrays)


def dataset_of_arrays(config: DataConfig, arrays: DataArrays) -> Dataset:
    """Converts custom data to the data set that `config` names, with its index file.

    Raises:
      FlaxdigitsError: if the index file is missing or does not fit the data.
    """
    if arrays.validation and config.split == "official":
        _log.warning("%s: its %d validation images are not used with data.split=official; "
                     "data.split=holdout validates on them", config.folder or config.dataset,
                     arrays.validation)
    assert isinstance(arrays.class_names, tuple) and arrays.train is not None  # set when created
    dataset = Dataset(
        config.dataset, "real", arrays.class_names, _align(arrays.images), arrays.labels,
        arrays.writers, None, arrays.official_train,
        fingerprint(arrays.images, arrays.labels, None),
        range(arrays.train, arrays.train + arrays.validation) if arrays.validation else range(0))
    return with_index_file(dataset, config)


def with_index_file(dataset: Dataset, config: DataConfig) -> Dataset:
    """Returns the data set with the index file that `config.indices` names, if it names one.

    Raises:
      FlaxdigitsError: if the file is missing or does not fit the data.
    """
    if config.indices is None and dataset.index_file is None:
        return dataset
    index_file = None
    if config.indices is not None:
        index_file = read_index_file(expand_user(config.indices), len(dataset.labels))
    return dataclasses.replace(dataset, index_file=index_file)


def _load_published(
    config: DataConfig, locations: DataLocations, progress: Progress
) -> Dataset:
    """Returns MNIST or Chinese MNIST from the sources that `load_dataset` describes."""
    if locations.source == "drawn":
        return _prepare_and_read(config.dataset, "drawn", locations, progress)
    try:
        return _prepare_and_read(config.dataset, "real", locations, progress)
    except FetchError as error:
        data_dir = _builder(config.dataset, "real", locations).data_dir_root
        tried = f"no prepared copy in {data_dir}, no raw_data_dir, and {error}"
        if locations.source == "real":
            raise FlaxdigitsError(
                f"{config.dataset}: no real data: {tried}; pass the folder of the raw files as "
                "raw_data_dir") from error
        _log.warning("%s: using SYNTHETIC data instead of the real data: %s", config.dataset, tried)
        return _prepare_and_read(config.dataset, "drawn", locations, progress)


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
                              "folder with data_dir or TFDS_DATA_DIR") from error


def _prepare_and_read(
    name: str, source: str, locations: DataLocations, progress: Progress
) -> Dataset:
    builder = _builder(name, source, locations)
    builder.progress = progress
    with progress.stage(f"preparing {name}"):
        builder.download_and_prepare()
    with progress.stage(f"reading {name}"):
        read = builder.read()
        return Dataset(
            name, source, builder.class_names, _align(read.images), read.labels, read.writers,
            read.samples, builder.official_train,
            fingerprint(read.images, read.labels, read.writers))


def _align(images: np.ndarray) -> np.ndarray:
    """Returns an aligned, read-only copy, which JAX can use as a CPU array without another copy.

    Args:
      images: [n, height, width] or [n, height, width, channels] uint8.

    Returns:
      [n, height, width, channels] uint8.
    """
    memory = np.empty(images.nbytes + XLA_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % XLA_ALIGNMENT
    aligned = memory[start:start + images.nbytes].reshape(images.shape)
    aligned[...] = images
    aligned.flags.writeable = False
    return aligned[..., None] if images.ndim == 3 else aligned
