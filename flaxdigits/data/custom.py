"""Reads custom data sets: idx files, a folder of images, an .npz file, or a registered function."""

import traceback
from pathlib import Path

from flaxdigits.config import DataConfig
from flaxdigits.data.arrays import DataArrays, arrays_of
from flaxdigits.data.idx_folder import read_idx_folder
from flaxdigits.data.image_folder import read_image_folder
from flaxdigits.data.npz import read_npz
from flaxdigits.datasets import Load, find_dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user


def read_custom(config: DataConfig) -> DataArrays:
    """Returns the arrays of the custom data set that `config.dataset` names.

    Raises:
      FlaxdigitsError: if a file is missing, damaged or of another format, or the training images
        have fewer than two classes.
    """
    load = find_dataset(config.dataset).load
    if load is not None:
        return _call(load, config)
    if config.dataset == "arrays":
        raise FlaxdigitsError(
            "data.dataset=arrays: the arrays must be passed in Python: "
            "flaxdigits.train(config, workdir, data=flaxdigits.DataArrays(images, labels))")
    path = expand_user(config.folder or "").resolve()
    if config.dataset == "npz":
        return read_npz(path)
    if not config.folder or not path.is_dir():
        raise FlaxdigitsError(
            f"data.folder={config.folder}: no such folder; set it to the folder that "
            f"data.dataset={config.dataset} is to read")
    if config.dataset == "idx_files":
        return read_idx_folder(path)
    return _image_folder(path, config.image_size)


def _image_folder(folder: Path, image_size: int | None) -> DataArrays:
    read = read_image_folder(folder, image_size)
    return arrays_of(folder, read.images, read.labels, read.class_names, None,
                     read.counts["train"], read.counts["validation"])


def _call(load: Load, config: DataConfig) -> DataArrays:
    """Returns the arrays of a registered function; converts its exceptions to FlaxdigitsError."""
    try:
        arrays = load(config)
    except FlaxdigitsError as error:
        raise FlaxdigitsError(f"data.dataset={config.dataset}: {error}") from error
    except Exception as error:
        file = getattr(getattr(load, "__code__", None), "co_filename", None)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == file]
        location = f"{file}:{lines[-1]}: " if lines else ""
        raise FlaxdigitsError(
            f"data.dataset={config.dataset}: {location}{type(error).__name__}: "
            f"{' '.join(str(error).split())}") from error
    if not isinstance(arrays, DataArrays):
        raise FlaxdigitsError(
            f"data.dataset={config.dataset}: {getattr(load, '__name__', load)} must return a "
            f"flaxdigits.DataArrays, got {type(arrays).__name__}")
    return arrays
