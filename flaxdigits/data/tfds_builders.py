"""Reads, without TensorFlow, data sets that tensorflow-datasets has prepared.

A prepared copy contains its own description (`dataset_info.json`, `features.json`), so the
code of its builder, which often needs TensorFlow, is neither imported nor executed.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from flaxdigits.data.arrays import DataArrays, arrays_of
from flaxdigits.data.files import open_regular
from flaxdigits.datasets import SPLITS
from flaxdigits.errors import FlaxdigitsError

_WRITERS = ("writer", "writer_id", "group")  # names of features that are read as `writers`
_FEATURES = "tensorflow_datasets.core.features."  # the module of all accepted feature classes
_ROWS_AT_ONCE = 4096
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def read_tfds(name: str, data_dir: Path) -> DataArrays:
    """Reads the splits train, validation and test of a prepared image-classification data set.

    Args:
      name: `<builder>` or `<builder>/<config>`, optionally with `:<version>`; without a version the
        newest one is read.
      data_dir: the folder in which tensorflow-datasets stores prepared data.

    Returns:
      The images, labels and writers of the splits, one split after another.

    Raises:
      FlaxdigitsError: if the data set is not prepared, needs TensorFlow to be read, is damaged, or
        does not consist of images with one label each.
    """
    folder = _find(name, data_dir)
    _check_features(folder)
    try:
        builder: Any = tfds.builder_from_directory(folder)
        features, counts = builder.info.features, {
            split: builder.info.splits[split].num_examples for split in SPLITS
            if split in builder.info.splits}
    except Exception as error:  # of several undocumented types
        raise _damage_error(folder, error) from error
    image, label, writer = _roles(folder, features)
    if not counts.get("train"):
        names = ", ".join(builder.info.splits) or "none"
        raise FlaxdigitsError(
            f"{folder}: has no split named train, which is required; its splits are {names}")
    read = [_read_split(folder, builder, split, [image, label, *writer])
            for split, count in counts.items() if count]
    images, labels, *writers = (
        list(itertools.chain(*columns)) for columns in zip(*read, strict=True))
    shapes = sorted({one.shape for one in images})
    if len(shapes) > 1:
        raise FlaxdigitsError(
            f"{folder}: its images have different sizes, such as {list(shapes[0])} and "
            f"{list(shapes[-1])}; only data sets whose images have one size are supported")
    return arrays_of(
        folder, np.stack(images), np.array(labels, np.int64), features[label].names,
        np.array(writers[0], np.int64) if writers else None, counts["train"],
        counts.get("validation", 0))


def _find(name: str, data_dir: Path) -> Path:
    """Returns the folder of the requested version of a prepared data set, or of the newest one.

    The folder is <data_dir>/<builder>[/<config>]/<version>.

    Raises:
      FlaxdigitsError: if there is none, a config must be named, or the folder cannot be read.
    """
    path, _, version = name.partition(":")
    folder = data_dir / path
    try:
        entries = {entry.name: entry for entry in folder.iterdir()} if folder.is_dir() else {}
    except OSError as error:
        raise FlaxdigitsError(
            f"{folder}: cannot be read ({error.strerror}); make the folder readable") from error
    versions = sorted((entry_name for entry_name in entries if _VERSION.fullmatch(entry_name)),
                      key=lambda entry_name: tuple(map(int, entry_name.split("."))))
    if version in versions:
        return entries[version]
    if versions and not version:
        return entries[versions[-1]]
    if versions:
        raise FlaxdigitsError(
            f"data.dataset=tfds:{name}: version {version} is not prepared in {folder}, which "
            f"contains {', '.join(versions)}")
    # tensorflow-datasets prepares data in temporary folders named incomplete.*.
    configs = sorted(entry_name for entry_name, entry in entries.items()
                     if not entry_name.startswith((".", "incomplete"))
                     and entry.is_dir()) if "/" not in path else []
    if configs:
        raise FlaxdigitsError(
            f"data.dataset=tfds:{name}: name one of its configs, such as tfds:{path}/{configs[0]}"
            + (f":{version}" if version else ""))
    raise FlaxdigitsError(
        f"data.dataset=tfds:{name}: nothing is prepared in {folder}; prepare it with "
        f"tensorflow_datasets.builder('{name}', data_dir='{data_dir}', file_format='array_record')"
        ".download_and_prepare(), which needs TensorFlow for most builders, or pass the folder of "
        "prepared data as data_dir, or in TFDS_DATA_DIR")


def _check_features(folder: Path) -> None:
    """Checks that features.json names only classes of tensorflow-datasets, since they are imported.

    Raises:
      FlaxdigitsError: if it names another class, or cannot be read.
    """
    path = folder / "features.json"
    try:
        with open_regular(path) as file:
            waiting: list[Any] = [json.load(file)]
    except (OSError, ValueError, RecursionError) as error:
        raise _damage_error(path, error) from error
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for key in ("pythonClassName", "python_class_name", "type"):
                value = node.get(key, _FEATURES)
                if isinstance(value, str) and "." in value and not value.startswith(_FEATURES):
                    raise FlaxdigitsError(
                        f"{path}: names the class {value!r}, but only the feature classes of "
                        "tensorflow-datasets itself are supported")
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _roles(folder: Path, features: Any) -> tuple[str, str, list[str]]:
    """Finds the features that contain the image, the label and the writer.

    Returns:
      The name of the image, the name of the label, and a list with the name of the writer, which is
      empty if there is none.

    Raises:
      FlaxdigitsError: if there is not exactly one image and one label.
    """
    kinds: Any = tfds.features  # without types
    columns = dict(features) if isinstance(features, kinds.FeaturesDict) else {}
    images = [name for name, feature in columns.items() if isinstance(feature, kinds.Image)
              or (type(feature) is kinds.Tensor and len(feature.shape) in (2, 3)
                  and feature.np_dtype == np.uint8)]
    labels = [name for name, feature in columns.items() if isinstance(feature, kinds.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        raise FlaxdigitsError(
            f"{folder}: is not image classification: it must have one image and one ClassLabel, "
            f"but has {len(images)} and {len(labels)} among its features: "
            f"{', '.join(columns) or 'none'}")
    writers = [name for name in _WRITERS if name in columns
               and type(columns[name]) is kinds.Scalar and columns[name].np_dtype.kind in "iu"]
    return images[0], labels[0], writers[:1]


def _read_split(folder: Path, builder: Any, split: str, names: list[str]) -> list[list[Any]]:
    """Reads a split.

    Returns:
      For each of `names`, the list of the values of this feature.

    Raises:
      FlaxdigitsError: if the data need TensorFlow to be read, or are damaged.
    """
    try:
        source = builder.as_data_source(split)
    except NotImplementedError as error:
        raise FlaxdigitsError(
            f"{folder}: is prepared as {builder.info.file_format.value}, which needs TensorFlow to "
            "be read; prepare it with file_format='array_record'") from error
    except Exception as error:
        raise _damage_error(folder, error) from error
    columns: list[list[Any]] = [[] for _ in names]
    try:
        for start in range(0, len(source), _ROWS_AT_ONCE):
            rows = range(start, min(start + _ROWS_AT_ONCE, len(source)))
            for example in source.__getitems__(rows):
                for column, name in zip(columns, names, strict=True):
                    column.append(example[name])
    except Exception as error:  # the readers raise undocumented types
        raise _damage_error(folder, error) from error
    return columns


def _damage_error(path: Path, error: Exception) -> FlaxdigitsError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return FlaxdigitsError(f"{path}: the prepared data set is damaged ({reason}); delete it and "
                           "prepare it again")
