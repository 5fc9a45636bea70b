"""Reads a folder of idx files, named as those of MNIST, Fashion-MNIST, KMNIST, QMNIST or EMNIST."""

import logging
import re
from pathlib import Path

import numpy as np

from flaxdigits.data.arrays import DataArrays, arrays_of
from flaxdigits.data.idx import INTEGERS, UNSIGNED_BYTES, read_idx
from flaxdigits.errors import FlaxdigitsError

# Names such as train-images-idx3-ubyte.gz, train-labels.idx1-ubyte,
# emnist-letters-test-images-idx3-ubyte and qmnist-test-labels-idx2-int.
_NAME = re.compile(
    r"(?P<prefix>[^.].*?[-_.])?(?P<part>train|t10k|test)[-_.]"
    r"(?P<content>(images|labels)[-_.]idx(?P<dimensions>[123])-(?P<type>ubyte|int))(\.gz)?",
    re.IGNORECASE)
_DTYPES = {"ubyte": UNSIGNED_BYTES, "int": INTEGERS}
_IMAGES = ("images-idx3-ubyte",)
_LABELS = ("labels-idx1-ubyte", "labels-idx1-int", "labels-idx2-int")
_PARTS = {"train": ("train",), "t10k": ("t10k", "test")}

# The number of training images in EMNIST letters, balanced, byclass (and bymerge) and digits.
_TRAINING_IMAGES_OF_EMNIST = (124_800, 112_800, 697_932, 240_000)

# The columns of QMNIST labels: class, NIST series, writer, number of the digit of this writer, NIST
# class, NIST index, and two more.
_QMNIST_COLUMNS, _QMNIST_WRITER = 8, 2

_log = logging.getLogger(__name__)


def read_idx_folder(folder: Path) -> DataArrays:
    """Reads the images and labels of a training part and, if there is one, of a test part.

    The files are named as in MNIST: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and the
    same with `t10k`, each with or without .gz. Also accepted are a dot instead of a hyphen, a
    prefix such as `emnist-letters-`, `test` instead of `t10k`, and the labels of QMNIST
    (`idx2-int`), whose first column is the class.

    The classes are the labels of the training part in ascending order, named by their numbers. The
    labels of QMNIST also contain the writers. Images of files whose names begin with `emnist` are
    transposed, since EMNIST stores transposed images.

    Raises:
      FlaxdigitsError: if a file is missing or damaged, the files do not match each other, or the
        training part has fewer than two classes.
    """
    files = _files(folder)
    prefix = next(iter({prefix for prefix, *_ in files}), "")
    parts = [_part(folder, files, prefix, "train")]
    if any(part in _PARTS["t10k"] for _, part, _ in files):
        parts.append(_part(folder, files, prefix, "t10k"))
    sizes = [f"{images.shape[1]}x{images.shape[2]}" for images, _ in parts]
    if len(set(sizes)) > 1:
        raise FlaxdigitsError(
            f"{folder}: training images are {sizes[0]} and test images {sizes[1]}; both must have "
            "the same size")
    if len({columns.shape[1] for _, columns in parts}) > 1:
        raise FlaxdigitsError(
            f"{folder}: the labels of the two parts have different numbers of columns; use files "
            "of the same data set")
    images, columns = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    train = len(parts[0][0])
    if prefix.startswith("emnist"):
        _log.warning("%s: EMNIST stores transposed images; they are transposed back", folder)
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    elif train in _TRAINING_IMAGES_OF_EMNIST:
        _log.warning(
            "%s: has as many training images as EMNIST, which stores transposed images; if it is "
            "EMNIST, rename the files to their published names (emnist-...), so that the images "
            "are transposed back", folder)
    writers = columns[:, _QMNIST_WRITER] if columns.shape[1] == _QMNIST_COLUMNS else None
    return arrays_of(folder, images, columns[:, 0], None, writers, train)


# The paths of the files by prefix, part and content, such as ("", "train", "images-idx3-ubyte").
_Files = dict[tuple[str, str, str], Path]


def _files(folder: Path) -> _Files:
    """Returns the idx files in the folder; if a file also exists with .gz, only that one."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: (path.suffix.lower() == ".gz", path.name))
    except OSError as error:
        raise FlaxdigitsError(
            f"{folder}: cannot be read ({error.strerror}); make the folder readable") from error
    matches = {path: match for path in paths
               if (match := _NAME.fullmatch(path.name)) and not path.is_dir()}
    files = {
        ((match["prefix"] or "").lower(), match["part"].lower(),
         re.sub("[_.]", "-", match["content"].lower())): path
        for path, match in matches.items()
    }
    prefixes = {prefix for prefix, *_ in files}
    if len(prefixes) > 1:
        names = ", ".join(sorted(prefix.rstrip("-_.") or "without a prefix" for prefix in prefixes))
        raise FlaxdigitsError(
            f"{folder}: contains idx files of several data sets ({names}); move each data set to a "
            "separate folder")
    return files


def _part(
    folder: Path, files: _Files, prefix: str, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a part, `train` or `t10k`.

    Returns:
      Images, [n, height, width] uint8, and labels, [n, columns], whose first column is the class.

    Raises:
      FlaxdigitsError: if a file is missing or damaged, or images and labels do not match.
    """
    images_path = _find(folder, files, prefix, part, _IMAGES)
    labels_path = _find(folder, files, prefix, part, _LABELS)
    images, columns = _read(images_path), _read(labels_path)
    columns = columns.reshape(len(columns), -1)
    if len(images) != len(columns):
        raise FlaxdigitsError(
            f"{labels_path}: {len(columns)} labels for {len(images)} images in "
            f"{images_path.name}; the numbers must be equal")
    if columns[:, 0].min() < 0:
        raise FlaxdigitsError(
            f"{labels_path}: has the label {columns[:, 0].min()}, and labels must not be negative; "
            "download the file again")
    return images, columns


def _find(
    folder: Path, files: _Files, prefix: str, part: str, contents: tuple[str, ...]
) -> Path:
    """Returns the path of the file of a part whose content is one of `contents`.

    Raises:
      FlaxdigitsError: if there is no such file, or more than one.
    """
    paths = [files[prefix, name, content] for name in _PARTS[part] for content in contents
             if (prefix, name, content) in files]
    if not paths:
        name = f"{prefix}{part}-{contents[0]}"
        raise FlaxdigitsError(
            f"{folder}: contains neither {name} nor {name}.gz; data.dataset=idx_files requires one "
            "of them, so rename the file if it has another name")
    if len(paths) > 1:
        raise FlaxdigitsError(
            f"{folder}: contains both {paths[0].name} and {paths[1].name}; remove one of them")
    return paths[0]


def _read(path: Path) -> np.ndarray:
    match = _NAME.fullmatch(path.name)
    return read_idx(path, int(match["dimensions"]), _DTYPES[match["type"].lower()])
