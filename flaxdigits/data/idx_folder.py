"""A folder of idx files: MNIST's names, and those of Fashion-MNIST, KMNIST, QMNIST and EMNIST."""

import logging
import re
from pathlib import Path

import numpy as np

from flaxdigits.data.examples import Examples
from flaxdigits.data.idx import INTEGERS, UNSIGNED_BYTES, read_idx
from flaxdigits.errors import FlaxdigitsError

# As in train-images-idx3-ubyte.gz, train-labels.idx1-ubyte, emnist-letters-test-images-idx3-ubyte
# and qmnist-test-labels-idx2-int.
_NAME = re.compile(
    r"(?P<prefix>[^.].*?[-_.])?(?P<part>train|t10k|test)[-_.]"
    r"(?P<content>(images|labels)[-_.]idx(?P<dimensions>[123])-(?P<type>ubyte|int))(\.gz)?",
    re.IGNORECASE)
_DTYPES = {"ubyte": UNSIGNED_BYTES, "int": INTEGERS}
_IMAGES = ("images-idx3-ubyte",)
_LABELS = ("labels-idx1-ubyte", "labels-idx1-int", "labels-idx2-int")
_PARTS = {"train": ("train",), "t10k": ("t10k", "test")}

# Of EMNIST's letters, balanced, byclass (bymerge has as many) and digits.
_TRAINING_IMAGES_OF_EMNIST = (124_800, 112_800, 697_932, 240_000)

_log = logging.getLogger(__name__)


def read_idx_folder(folder: Path) -> tuple[Examples, tuple[str, ...], int | None]:
    """Reads images and labels of a training part and, if there is one, of a test part.

    The files are named as MNIST's, `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the
    same of `t10k`, each plain or with .gz. A dot in place of a hyphen, a prefix such as
    `emnist-letters-` and `test` in place of `t10k` are allowed, and labels may be QMNIST's
    `idx2-int`, whose first column is the class.

    The classes are the labels that the training part has, in order, each named by its number.
    Files whose names begin with `emnist` are transposed, as EMNIST stores its images.

    Returns: the examples, the names of the classes, and the number of training rows (None where
      there is no test part).

    Raises:
      FlaxdigitsError: a file is missing or damaged, the files do not fit each other, or the
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
            "one size")
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    train_labels = parts[0][1]
    classes = np.unique(train_labels)
    if len(classes) < 2:
        raise FlaxdigitsError(
            f"{folder}: every training label is {classes[0]}; there must be two classes or more")
    unknown = np.setdiff1d(labels, classes)
    if unknown.size:
        raise FlaxdigitsError(
            f"{folder}: the test part has the label {unknown[0]}, which no training image has; "
            "add training images of it or take its test images away")
    if prefix.startswith("emnist"):
        _log.warning("%s: EMNIST stores its images transposed; they are turned upright", folder)
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    elif len(train_labels) in _TRAINING_IMAGES_OF_EMNIST:
        _log.warning(
            "%s: has as many images as EMNIST, which stores them transposed; if it is EMNIST, give "
            "the files their own names (emnist-...) and they are turned upright", folder)
    return (
        Examples(images, np.searchsorted(classes, labels).astype(np.int32)),
        tuple(map(str, classes.tolist())),
        len(train_labels) if len(parts) > 1 else None,
    )


# (prefix, part, content), such as ("", "train", "images-idx3-ubyte"), and where it lies.
_Files = dict[tuple[str, str, str], Path]


def _files(folder: Path) -> _Files:
    """The idx files in the folder; of a plain one and its .gz, the latter."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: (path.suffix.lower() == ".gz", path.name))
    except OSError as error:
        raise FlaxdigitsError(f"{folder}: cannot be read ({error.strerror})") from error
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
            f"{folder}: holds idx files of several data sets ({names}); give each a folder of its "
            "own")
    return files


def _part(
    folder: Path, files: _Files, prefix: str, part: str
) -> tuple[np.ndarray, np.ndarray]:
    images_path = _one(folder, files, prefix, part, _IMAGES)
    labels_path = _one(folder, files, prefix, part, _LABELS)
    images, labels = _read(images_path), _read(labels_path)
    if labels.ndim == 2:
        labels = labels[:, 0]
    if len(images) != len(labels):
        raise FlaxdigitsError(
            f"{labels_path}: {len(labels)} labels for {len(images)} images in "
            f"{images_path.name}; there must be as many of both")
    if labels.min() < 0:
        raise FlaxdigitsError(
            f"{labels_path}: has the label {labels.min()}; labels are 0 or greater; get the file "
            "anew")
    return images, labels.astype(np.int32)


def _one(
    folder: Path, files: _Files, prefix: str, part: str, contents: tuple[str, ...]
) -> Path:
    paths = [files[prefix, name, content] for name in _PARTS[part] for content in contents
             if (prefix, name, content) in files]
    if not paths:
        name = f"{prefix}{part}-{contents[0]}"
        raise FlaxdigitsError(
            f"{folder}: lacks {name} or {name}.gz, which data.dataset=idx_files reads; give the "
            "files these names")
    if len(paths) > 1:
        raise FlaxdigitsError(
            f"{folder}: holds both {paths[0].name} and {paths[1].name}; take one of them away")
    return paths[0]


def _read(path: Path) -> np.ndarray:
    match = _NAME.fullmatch(path.name)
    return read_idx(path, int(match["dimensions"]), _DTYPES[match["type"].lower()])
