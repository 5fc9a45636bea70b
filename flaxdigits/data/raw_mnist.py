"""MNIST's four official files: their addresses, their checksums and a reader.

Y. LeCun, C. Cortes, C. Burges. The checksums are over the decompressed files, so that it does not
matter who compressed them. The addresses are untested.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flaxdigits.data.examples import Examples
from flaxdigits.data.fetch import TIMEOUTS, Timeouts, fetch
from flaxdigits.data.idx import content_sha256, read_idx
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress

FOLDER = "mnist"
CLASS_NAMES = tuple("0123456789")
OFFICIAL_TRAIN = 60_000  # the rows before the test set's 10,000

ADDRESSES = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
SHA256 = {
    "train-images-idx3-ubyte":
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte":
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte":
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte":
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

_FOLDERS = (FOLDER, "MNIST/raw")  # the latter is torchvision's
_LARGEST = 60_000 * 28 * 28


def read_mnist(raw_data_dir: Path) -> Examples:
    """Reads the 60,000 training images, then the 10,000 test images.

    The four files are in `<raw_data_dir>/mnist` or, as torchvision leaves them, in
    `<raw_data_dir>/MNIST/raw`; each is plain or gzipped, and named with a hyphen or a dot
    (`train-images.idx3-ubyte`). Of several copies of a file, the first undamaged one is read.

    Raises:
      FlaxdigitsError: a file is missing or damaged, or its content is not the official file's.
    """
    train_images, train_labels, test_images, test_labels = (
        _read_first(raw_data_dir, name) for name in SHA256)
    return Examples(
        np.concatenate([train_images, test_images]),
        np.concatenate([train_labels, test_labels]).astype(np.int32))


def fetch_mnist(
    raw_data_dir: Path,
    addresses: Sequence[str] = ADDRESSES,
    timeouts: Timeouts = TIMEOUTS,
    progress: Progress = NO_PROGRESS,
) -> None:
    """Downloads those of the four files that `<raw_data_dir>/mnist` lacks or has damaged.

    Args:
      addresses: folders that have the four files, each ending in a slash, tried in this order.

    Raises:
      FetchError: no address provided a file.
    """
    for name in SHA256:
        path = raw_data_dir / FOLDER / f"{name}.gz"
        read = functools.partial(read_verified, name=name)
        try:
            read(path)
        except FlaxdigitsError:
            fetch([address + path.name for address in addresses], path, read, timeouts,
                  progress)


def read_verified(path: Path, name: str) -> np.ndarray:
    """Reads the official file `name`, plain or gzipped, from a path.

    Returns: uint8, of the shape in the file's header.

    Raises:
      FlaxdigitsError: the file is missing or damaged, or its content is not the official file's.
    """
    array = read_idx(path, dimensions=3 if "idx3" in name else 1, largest=_LARGEST)
    sha256 = content_sha256(array)
    if sha256 != SHA256[name]:
        raise FlaxdigitsError(
            f"{path}: altered, the sha256 of its decompressed content is {sha256} and that of "
            f"MNIST's official {name} is {SHA256[name]}; download the file again")
    return array


def _read_first(raw_data_dir: Path, name: str) -> np.ndarray:
    """Returns the first copy of a file that is the official one.

    Raises:
      FlaxdigitsError: there is no copy, or none is the official one (names the first).
    """
    names = [f"{name}.gz", name]
    names += [other.replace("-idx", ".idx") for other in names]
    paths = [raw_data_dir / folder / other for folder in _FOLDERS for other in names]
    problems = []
    for path in filter(os.path.exists, paths):
        try:
            return read_verified(path, name)
        except FlaxdigitsError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    raise FlaxdigitsError(
        f"{paths[0]}: no such file, nor {name} plain or in MNIST/raw; put MNIST's official file "
        "there, or leave --raw_data_dir out to download it")
