"""MNIST's four official files: where they are, how they are verified, what they hold.

Y. LeCun, C. Cortes, C. Burges. The checksums are those that tensorflow-datasets records for the
files. The addresses are untested.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flaxdigits.data.examples import Examples
from flaxdigits.data.fetch import TIMEOUTS, Timeouts, fetch
from flaxdigits.data.idx import read_idx
from flaxdigits.errors import FlaxdigitsError

FOLDER = "mnist"
CLASS_NAMES = tuple("0123456789")
OFFICIAL_TRAIN = 60_000  # the rows before the test set's 10,000

ADDRESSES = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
SHA256 = {
    "train-images-idx3-ubyte.gz":
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz":
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz":
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz":
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def read_mnist(raw_data_dir: Path) -> Examples:
    """The 60,000 training images, then the 10,000 test images, from `<raw_data_dir>/mnist`.

    Raises:
      FlaxdigitsError: a file is missing, or its sha256 is not the official file's.
    """
    folder = raw_data_dir / FOLDER
    for name, sha256 in SHA256.items():
        verify(folder / name, sha256)
    parts = ("train", "t10k")
    images = [read_idx(folder / f"{part}-images-idx3-ubyte.gz", dimensions=3) for part in parts]
    labels = [read_idx(folder / f"{part}-labels-idx1-ubyte.gz", dimensions=1) for part in parts]
    return Examples(np.concatenate(images), np.concatenate(labels).astype(np.int32))


def fetch_mnist(
    raw_data_dir: Path,
    addresses: Sequence[str] = ADDRESSES,
    timeouts: Timeouts = TIMEOUTS,
) -> None:
    """Downloads those of the four files that `<raw_data_dir>/mnist` lacks or holds damaged.

    Args:
      addresses: folders that hold the four files, each ending in a slash, tried in this order.

    Raises:
      FetchError: a file was to be had nowhere.
    """
    for name, sha256 in SHA256.items():
        path = raw_data_dir / FOLDER / name
        if not _is_whole(path, sha256):
            fetch([address + name for address in addresses], path,
                  functools.partial(verify, sha256=sha256), timeouts)


def verify(path: Path, sha256: str) -> None:
    """Raises FlaxdigitsError unless the file is there and has this sha256."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FlaxdigitsError(
            f"{path}: cannot be read ({error.strerror}); put MNIST's official file there, or "
            "leave --raw_data_dir out to download it") from error
    if found != sha256:
        raise FlaxdigitsError(
            f"{path}: truncated or altered, its sha256 is {found} and MNIST's official file has "
            f"{sha256}; get the file anew")


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        verify(path, sha256)
    except FlaxdigitsError:
        return False
    return True
