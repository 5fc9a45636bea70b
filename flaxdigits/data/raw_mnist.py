"""Downloads, reads and verifies the four official files of MNIST.

MNIST is by Y. LeCun, C. Cortes and C. Burges. The checksums are those of the decompressed files, so
that they do not depend on the compression. The URLs have not been tested.
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
OFFICIAL_TRAIN = 60_000  # training images, which are followed by 10,000 test images

URLS = (
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

_FOLDERS = (FOLDER, "MNIST/raw")  # the second one is used by torchvision
_LARGEST = 60_000 * 28 * 28


def read_mnist(raw_data_dir: Path) -> Examples:
    """Reads the 60,000 training images, then the 10,000 test images.

    The four files are in `<raw_data_dir>/mnist` or, as torchvision stores them, in
    `<raw_data_dir>/MNIST/raw`. Each file is plain or gzipped, and its name has a hyphen or a dot
    (`train-images.idx3-ubyte`). If there are several copies of a file, the first undamaged one is
    read.

    Raises:
      FlaxdigitsError: if a file is missing or damaged, or is not the official file.
    """
    train_images, train_labels, test_images, test_labels = (
        _read_first(raw_data_dir, name) for name in SHA256)
    return Examples(
        np.concatenate([train_images, test_images]),
        np.concatenate([train_labels, test_labels]).astype(np.int32))


def fetch_mnist(
    raw_data_dir: Path,
    urls: Sequence[str] = URLS,
    timeouts: Timeouts = TIMEOUTS,
    progress: Progress = NO_PROGRESS,
) -> None:
    """Downloads those of the four files that are missing or damaged in `<raw_data_dir>/mnist`.

    Args:
      raw_data_dir: the folder of the raw files.
      urls: the URLs of folders that contain the four files, each with a final slash;
        they are tried in this order.
      timeouts: the timeouts of the downloads.
      progress: is notified of the number of bytes.

    Raises:
      FetchError: if no URL provides a file.
    """
    for name in SHA256:
        path = raw_data_dir / FOLDER / f"{name}.gz"
        read = functools.partial(read_verified, name=name)
        try:
            read(path)
        except FlaxdigitsError:
            fetch([url + path.name for url in urls], path, read, timeouts,
                  progress)


def read_verified(path: Path, name: str) -> np.ndarray:
    """Reads an official file, plain or gzipped, and verifies it.

    Args:
      path: the path of the file.
      name: the official name of the file, a key of `SHA256`.

    Returns:
      An uint8 array with the shape in the header of the file.

    Raises:
      FlaxdigitsError: if the file is missing or damaged, or is not the official file.
    """
    array = read_idx(path, dimensions=3 if "idx3" in name else 1, largest=_LARGEST)
    sha256 = content_sha256(array)
    if sha256 != SHA256[name]:
        raise FlaxdigitsError(
            f"{path}: checksum mismatch: expected SHA-256 {SHA256[name]} of its decompressed "
            f"content, got {sha256}; download it again")
    return array


def _read_first(raw_data_dir: Path, name: str) -> np.ndarray:
    """Returns the array of the first existing copy whose checksum is that of the official file.

    Returns:
      An uint8 array with the shape in the header of the file.

    Raises:
      FlaxdigitsError: if there is no copy, or no copy is the official file; the message then names
        the first copy.
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
        f"{raw_data_dir}: contains neither {name}.gz nor {name}, in mnist/ or in MNIST/raw/; put "
        "MNIST's official file into mnist/, or omit raw_data_dir to download it")
