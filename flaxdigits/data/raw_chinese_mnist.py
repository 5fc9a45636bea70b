"""Downloads, reads and verifies the 15,000 JPEGs of Chinese MNIST.

K. Nazarpour, M. Chen (2017), Handwritten Chinese Numbers, Newcastle University,
doi 10.17634/137930-3, CC BY 4.0; on Kaggle as gpreda/chinese-mnist. 100 writers ("suites") wrote
15 characters ("codes") 10 times each ("samples"). The two URLs have not been tested. If the
JPEGs of the original article are not identical to those of Kaggle, the checksum rejects them.
"""

import hashlib
import io
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image

from flaxdigits.data.archives import ArchiveError, check_size, read_7z, read_zip_entry, zip_entries
from flaxdigits.data.examples import Examples
from flaxdigits.data.fetch import TIMEOUTS, Timeouts, fetch
from flaxdigits.data.files import open_regular
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress

FOLDER = "chinese_mnist"
ARCHIVE = "chinese_mnist.zip"
CLASS_NAMES = tuple("零一二三四五六七八九十百千万亿")

URLS = (
    "https://www.kaggle.com/api/v1/datasets/download/gpreda/chinese-mnist",
    "https://data.ncl.ac.uk/ndownloader/articles/10280831/versions/1",
)
# The concatenated bytes of the 15,000 JPEGs, sorted by suite, sample and code as numbers, have this
# digest.
SHA256 = "484d091a6a5a7eece3934c208e96cf8f4cda2168df0377172fcd3334fe50d300"

_WRITERS, _SAMPLES, _CODES = range(1, 101), range(1, 11), range(1, 16)
_IN_KAGGLES_ZIP = re.compile(r"input_([0-9]{1,3})_([0-9]{1,2})_([0-9]{1,2})\.jpg")
_IN_THE_ARTICLE = re.compile(r"Locate([0-9]{1,3}),([0-9]{1,2}),([0-9]{1,2})\.jpg")
_LARGEST_JPEG = 1 << 12  # bytes; the official JPEGs have at most 1002
_LARGEST_ARCHIVE = 1 << 28
_7Z_MAGIC = b"7z\xbc\xaf'\x1c"

Key = tuple[int, int, int]  # suite, sample, code

_KEYS = frozenset(itertools.product(_WRITERS, _SAMPLES, _CODES))


def raw_order() -> list[Key]:
    """Returns the 15,000 keys in the row order of Kaggle's chinese_mnist.csv.

    The codes are in the order 10 to 15, 1 to 9; within a code, suites and samples are sorted as
    strings.
    """
    codes = [*range(10, 16), *range(1, 10)]
    return [(suite, sample, code) for code in codes
            for suite in sorted(_WRITERS, key=str) for sample in sorted(_SAMPLES, key=str)]


def read_chinese_mnist(raw_data_dir: Path) -> Examples:
    """Returns the 15,000 decoded images in the row order of the CSV; a label is the code - 1.

    Raises:
      FlaxdigitsError: as in `read_jpegs`.
    """
    jpegs, order = read_jpegs(raw_data_dir), raw_order()
    writers, samples, codes = np.array(order, np.int32).T
    images = np.stack([np.asarray(Image.open(io.BytesIO(jpegs[key])).convert("L"))
                       for key in order])
    return Examples(images, codes - 1, writers, samples)


def read_jpegs(raw_data_dir: Path) -> dict[Key, bytes]:
    """Reads and verifies the 15,000 JPEGs in `<raw_data_dir>/chinese_mnist`.

    This folder contains the zip file of Kaggle (with any name) or its extracted files, or the zip
    file of the original article, its `Raw Dataset.7z`, or the files extracted from the 7z. If there
    are several of these, the first undamaged one is read.

    Raises:
      FlaxdigitsError: if the files are missing, unreadable, or not the official JPEGs.
    """
    folder = raw_data_dir / FOLDER
    if not folder.is_dir():
        raise FlaxdigitsError(
            f"{folder}: no such folder; create it and put {ARCHIVE} from Kaggle into it, or omit "
            "raw_data_dir to download the archive")
    archives = [path for path in folder.glob("*") if path.suffix.lower() in (".zip", ".7z")]
    problems = []
    for path in sorted(archives, key=lambda path: (path.name.lower() != ARCHIVE, path.name)):
        try:
            return read_archive(path)
        except FlaxdigitsError as error:
            problems.append(error)
    try:
        return _verify(dict(_from_folder(folder)), folder)
    except FlaxdigitsError as error:
        problems.append(error)
    raise problems[0]


def fetch_chinese_mnist(
    raw_data_dir: Path,
    urls: Sequence[str] = URLS,
    timeouts: Timeouts = TIMEOUTS,
    progress: Progress = NO_PROGRESS,
) -> None:
    """Downloads the archive to `<raw_data_dir>/chinese_mnist`, unless an undamaged one exists.

    Args:
      raw_data_dir: the folder of the raw files.
      urls: the URLs of the archive, which are tried in this order.
      timeouts: the timeouts of the downloads.
      progress: is notified of the number of bytes.

    Raises:
      FetchError: if no URL provides the archive.
    """
    path = raw_data_dir / FOLDER / ARCHIVE
    try:
        read_archive(path)
    except FlaxdigitsError:
        fetch(urls, path, read_archive, timeouts, progress)


def read_archive(path: Path) -> dict[Key, bytes]:
    """Reads and verifies the JPEGs in Kaggle's zip file, or in the zip or 7z file of the article.

    Everything is read in memory. The sizes that the archive declares are checked before anything is
    decompressed, and are not exceeded.

    Raises:
      FlaxdigitsError: if the archive is damaged, or its JPEGs are not the official ones.
    """
    try:
        with open_regular(path) as file:
            check_size("the archive", os.fstat(file.fileno()).st_size, _LARGEST_ARCHIVE)
            is_7z = file.peek(len(_7Z_MAGIC)).startswith(_7Z_MAGIC)
            jpegs = dict(_from_7z(file) if is_7z else _from_zip(file))
    except OSError as error:
        raise FlaxdigitsError(
            f"{path}: cannot be read ({error.strerror or error}); download the archive again"
        ) from error
    except ArchiveError as error:
        raise FlaxdigitsError(
            f"{path}: truncated or damaged ({error}); download the archive again") from error
    except ImportError as error:
        raise FlaxdigitsError(
            f"{path}: reading the 7z archive of the original article needs py7zr: "
            "pip install -e '.[article]'") from error
    return _verify(jpegs, path)


def _key(name: str) -> Key | None:
    """Returns the key in the last part of the path of an image; None for other files."""
    name = PurePosixPath(name).name
    match = _IN_KAGGLES_ZIP.fullmatch(name) or _IN_THE_ARTICLE.fullmatch(name)
    if match is None:
        return None
    suite, sample, code = map(int, match.groups())
    return (suite, sample, code) if (suite, sample, code) in _KEYS else None


def _from_zip(file: BinaryIO) -> Iterator[tuple[Key, bytes]]:
    entries = zip_entries(file)
    images = {key: entry for entry in entries if (key := _key(entry.filename))}
    for entry in images.values():
        check_size(entry.filename, entry.file_size, _LARGEST_JPEG)
    archives = [entry for entry in entries if entry.filename.lower().endswith(".7z")]
    check_size("the 7z file in it", sum(entry.file_size for entry in archives), _LARGEST_ARCHIVE)
    for key, entry in images.items():
        yield key, read_zip_entry(file, entry)
    for entry in archives:
        yield from _from_7z(io.BytesIO(read_zip_entry(file, entry)))


def _from_7z(file: BinaryIO) -> Iterator[tuple[Key, bytes]]:
    for name, content in read_7z(
            file, lambda name: _key(name) is not None, _LARGEST_JPEG, _LARGEST_ARCHIVE):
        if (key := _key(name)) is not None:
            yield key, content


def _from_folder(folder: Path) -> Iterator[tuple[Key, bytes]]:
    for path in folder.rglob("*"):
        if (key := _key(path.name)) is None:
            continue
        try:
            with open_regular(path) as file:
                yield key, file.read(_LARGEST_JPEG)
        except OSError as error:
            raise FlaxdigitsError(
                f"{path}: cannot be read ({error.strerror}); download it again") from error


def _verify(jpegs: dict[Key, bytes], path: Path) -> dict[Key, bytes]:
    """Returns the JPEGs that were read from `path`.

    Raises:
      FlaxdigitsError: if an image is missing, or the JPEGs are not the official ones.
    """
    expected = len(_WRITERS) * len(_SAMPLES) * len(_CODES)
    if jpegs.keys() != _KEYS:
        raise FlaxdigitsError(
            f"{path}: contains {len(jpegs)} of Chinese MNIST's {expected:,} images; download it "
            "again")
    digest = hashlib.sha256()
    for key in sorted(jpegs):
        digest.update(jpegs[key])
    if digest.hexdigest() != SHA256:
        raise FlaxdigitsError(
            f"{path}: checksum mismatch: expected SHA-256 {SHA256} of its JPEGs, got "
            f"{digest.hexdigest()}; download it again")
    return jpegs
