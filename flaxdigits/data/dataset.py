"""A data set in memory, wherever it comes from."""

import dataclasses
import functools
import logging
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flaxdigits.config import DataConfig
from flaxdigits.data.builders import BUILDERS, DigitsBuilder
from flaxdigits.data.examples import Examples, fingerprint
from flaxdigits.data.fetch import FetchError
from flaxdigits.data.framing import Framing, measure_framing
from flaxdigits.data.own import OwnData, read_own
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user

XLA_ALIGNMENT = 64  # bytes; what does not begin at a multiple of it, XLA copies

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataLocations:
    """Where to look for data; never part of a config.

    raw_data_dir: the folder of the raw files; None downloads them
    data_dir: where prepared copies lie; None is tensorflow-datasets' own (TFDS_DATA_DIR)
    source: "real" refuses drawn data, "drawn" wants it, "auto" falls back on it
    """

    raw_data_dir: Path | None = None
    data_dir: Path | None = None
    source: Literal["auto", "real", "drawn"] = "auto"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """All examples of a data set in its raw order, all official parts one after another.

    name: as in `DataConfig.dataset`
    source: "real" or "drawn"
    images: [n, height, width, 1] uint8, read-only
    labels: [n] int32
    writers, samples: [n] int32, or None where the data set does not tell
    official_train: how many of the first rows are the official training part; None: no parts
    fingerprint: sha256 hex over the bytes of images, labels and writers
    validation: the rows that the user's folder sets apart for validation, between the training
      and the test part
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

    def identity(self) -> dict[str, Any]:
        """Returns what identifies the data, as JSON values.

        `dataset`, `source` and `fingerprint`; of the user's own data also what the
        fingerprint does not cover: `class_names`, `official_train` and the number of `validation`
        images.
        """
        values = {"dataset": self.name, "source": self.source, "fingerprint": self.fingerprint}
        if self.name in BUILDERS:
            return values
        return values | {
            "class_names": list(self.class_names), "official_train": self.official_train,
            "validation": len(self.validation)}

    def description(self) -> dict[str, Any]:
        """Returns the identity, and of the user's own data their `framing`, as JSON values.

        A network can be used with these alone.
        """
        if self.name in BUILDERS:
            return self.identity()
        return self.identity() | {"framing": dataclasses.asdict(self._framing)}

    @functools.cached_property
    def _framing(self) -> Framing:
        return measure_framing(self.images)


def load_dataset(config: DataConfig, locations: DataLocations) -> Dataset:
    """Reads the data set that `config` names.

    With source "auto", the first of these that there is: a prepared copy, the raw files in
    `raw_data_dir` (if one is given they must be there), a download, drawn data (with a warning).

    Raises:
      FlaxdigitsError: files are missing, damaged or cannot be written; or source is "real" and
        there is no prepared copy, no `raw_data_dir` and no download.
    """
    if config.dataset not in BUILDERS:
        return _own(config, locations)
    if locations.source == "drawn":
        return _prepared(config.dataset, "drawn", locations)
    try:
        return _prepared(config.dataset, "real", locations)
    except FetchError as error:
        data_dir = _builder(config.dataset, "real", locations).data_dir_root
        tried = f"no prepared copy in {data_dir}, no --raw_data_dir, and {error}"
        if locations.source == "real":
            raise FlaxdigitsError(f"{config.dataset}: no real data: {tried}") from error
        _log.warning("%s: using DRAWN data, not the real: %s", config.dataset, tried)
        return _prepared(config.dataset, "drawn", locations)


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
        raise FlaxdigitsError("there is no home folder in which to keep prepared data: name a "
                              "folder with --data_dir or TFDS_DATA_DIR") from error


def _prepared(name: str, source: str, locations: DataLocations) -> Dataset:
    builder = _builder(name, source, locations)
    builder.download_and_prepare()
    return _dataset(
        name, source, builder.read(), builder.class_names, builder.official_train)


def _own(config: DataConfig, locations: DataLocations) -> Dataset:
    if locations.source == "drawn":
        raise FlaxdigitsError(
            f"--data=drawn: there is nothing to draw for data.dataset={config.dataset}; use mnist "
            "or chinese_mnist")
    own: OwnData = read_own(config)
    dataset = _dataset(
        config.dataset, "real", own.examples, own.class_names, own.official_train)
    if own.validation and config.split == "official":
        _log.warning("%s: its %d validation images are not used with data.split=official; "
                     "data.split=holdout validates on them", config.folder, len(own.validation))
    return dataclasses.replace(dataset, validation=own.validation)


def _dataset(
    name: str, source: str, examples: Examples, class_names: tuple[str, ...],
    official_train: int | None,
) -> Dataset:
    return Dataset(
        name=name,
        source=source,
        class_names=class_names,
        images=_in_place(examples.images)[..., None],
        labels=examples.labels,
        writers=examples.writers,
        samples=examples.samples,
        official_train=official_train,
        fingerprint=fingerprint(examples.images, examples.labels, examples.writers),
    )


def _in_place(images: np.ndarray) -> np.ndarray:
    """The same, to read alone, where JAX takes them for an array of the CPU's without a copy."""
    memory = np.empty(images.nbytes + XLA_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % XLA_ALIGNMENT
    placed = memory[start:start + images.nbytes].reshape(images.shape)
    placed[...] = images
    placed.flags.writeable = False
    return placed
