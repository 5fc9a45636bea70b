"""Chinese MNIST's 15,000 JPEGs: in which archives they come, their order, their verification.

K. Nazarpour, M. Chen (2017), Handwritten Chinese Numbers, Newcastle University,
doi 10.17634/137930-3, CC BY 4.0; on Kaggle as gpreda/chinese-mnist. 100 writers ("suites") wrote
15 characters ("codes") 10 times each ("samples"). The two addresses are untested, and so is
whether the article's JPEGs are Kaggle's byte for byte: if they are not, it is refused by checksum.
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

ADDRESSES = (
    "https://www.kaggle.com/api/v1/datasets/download/gpreda/chinese-mnist",
    "https://data.ncl.ac.uk/ndownloader/articles/10280831/versions/1",
)
# Over the bytes of the 15,000 JPEGs, one after another, by suite, sample and code as numbers.
SHA256 = "484d091a6a5a7eece3934c208e96cf8f4cda2168df0377172fcd3334fe50d300"

_WRITERS, _SAMPLES, _CODES = range(1, 101), range(1, 11), range(1, 16)
_IN_KAGGLES_ZIP = re.compile(r"input_([0-9]{1,3})_([0-9]{1,2})_([0-9]{1,2})\.jpg")
_IN_THE_ARTICLE = re.compile(r"Locate([0-9]{1,3}),([0-9]{1,2}),([0-9]{1,2})\.jpg")
_LARGEST_JPEG = 1 << 12  # bytes; the real ones have at most 1002
_LARGEST_ARCHIVE = 1 << 28
_7Z_MAGIC = b"7z\xbc\xaf'\x1c"

Key = tuple[int, int, int]  # suite, sample, code

_KEYS = frozenset(itertools.product(_WRITERS, _SAMPLES, _CODES))


def raw_order() -> list[Key]:
    """Returns the 15,000 keys in the row order of Kaggle's chinese_mnist.csv.

    The codes go 10 to 15, then 1 to 9; within one, suites and samples are sorted as text.
    """
    codes = [*range(10, 16), *range(1, 10)]
    return [(suite, sample, code) for code in codes
            for suite in sorted(_WRITERS, key=str) for sample in sorted(_SAMPLES, key=str)]


def read_chinese_mnist(raw_data_dir: Path) -> Examples:
    """Returns the 15,000 images, decoded, in the row order of the CSV. Labels are code - 1.

    Raises:
      FlaxdigitsError: as `read_jpegs`.
    """
    jpegs, order = read_jpegs(raw_data_dir), raw_order()
    writers, samples, codes = np.array(order, np.int32).T
    images = np.stack([np.asarray(Image.open(io.BytesIO(jpegs[key])).convert("L"))
                       for key in order])
    return Examples(images, codes - 1, writers, samples)


def read_jpegs(raw_data_dir: Path) -> dict[Key, bytes]:
    """Reads the 15,000 JPEGs in `<raw_data_dir>/chinese_mnist`, verified.

    That folder has Kaggle's zip (under any name) or its files unpacked, or the original article's
    zip, its `Raw Dataset.7z`, or that unpacked. Of several, the first undamaged one is read.

    Raises:
      FlaxdigitsError: nothing is there, it cannot be read, or the JPEGs are not the official ones.
    """
    folder = raw_data_dir / FOLDER
    if not folder.is_dir():
        raise FlaxdigitsError(
            f"{folder}: no such folder; put Kaggle's {ARCHIVE} there, or leave --raw_data_dir "
            "out to download it")
    archives = [path for path in folder.glob("*") if path.suffix.lower() in (".zip", ".7z")]
    problems = []
    for path in sorted(archives, key=lambda path: (path.name.lower() != ARCHIVE, path.name)):
        try:
            return read_archive(path)
        except FlaxdigitsError as error:
            problems.append(error)
    try:
        return _verified(dict(_from_folder(folder)), folder)
    except FlaxdigitsError as error:
        problems.append(error)
    raise problems[0]


def fetch_chinese_mnist(
    raw_data_dir: Path,
    addresses: Sequence[str] = ADDRESSES,
    timeouts: Timeouts = TIMEOUTS,
    progress: Progress = NO_PROGRESS,
) -> None:
    """Downloads the archive to `<raw_data_dir>/chinese_mnist`, unless it is there and whole.

    Raises:
      FetchError: no address has it.
    """
    path = raw_data_dir / FOLDER / ARCHIVE
    try:
        read_archive(path)
    except FlaxdigitsError:
        fetch(addresses, path, read_archive, timeouts, progress)


def read_archive(path: Path) -> dict[Key, bytes]:
    """Reads the JPEGs of Kaggle's zip, the article's zip or its 7z, verified; in memory only.

    Sizes that an archive declares are checked before anything is expanded, and bound what is.

    Raises:
      FlaxdigitsError: the archive is damaged, or its JPEGs are not the official ones.
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
            f"{path}: the original article is a 7z archive, and reading it needs py7zr; "
            "pip install -e '.[article]'") from error
    return _verified(jpegs, path)


def _key(name: str) -> Key | None:
    """Returns the key in an image's file name, in any folder; None for any other name."""
    name = PurePosixPath(name).name
    match = _IN_KAGGLES_ZIP.fullmatch(name) or _IN_THE_ARTICLE.fullmatch(name)
    key = match and tuple(map(int, match.groups()))
    return key if key in _KEYS else None


def _from_zip(file: BinaryIO) -> Iterator[tuple[Key, bytes]]:
    entries = zip_entries(file)
    images = {key: entry for entry in entries if (key := _key(entry.filename))}
    for entry in images.values():
        check_size(entry.filename, entry.file_size, _LARGEST_JPEG)
    archives = [entry for entry in entries if entry.filename.lower().endswith(".7z")]
    check_size("its 7z", sum(entry.file_size for entry in archives), _LARGEST_ARCHIVE)
    for key, entry in images.items():
        yield key, read_zip_entry(file, entry)
    for entry in archives:
        yield from _from_7z(io.BytesIO(read_zip_entry(file, entry)))


def _from_7z(file: BinaryIO) -> Iterator[tuple[Key, bytes]]:
    for name, content in read_7z(
            file, lambda name: _key(name) is not None, _LARGEST_JPEG, _LARGEST_ARCHIVE):
        yield _key(name), content


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


def _verified(jpegs: dict[Key, bytes], path: Path) -> dict[Key, bytes]:
    expected = len(_WRITERS) * len(_SAMPLES) * len(_CODES)
    if jpegs.keys() != _KEYS:
        raise FlaxdigitsError(
            f"{path}: holds {len(jpegs)} of Chinese MNIST's images instead of all {expected:,}; "
            "download it again")
    digest = hashlib.sha256()
    for key in sorted(jpegs):
        digest.update(jpegs[key])
    if digest.hexdigest() != SHA256:
        raise FlaxdigitsError(
            f"{path}: altered, the sha256 over its JPEGs is {digest.hexdigest()} and Chinese "
            f"MNIST's is {SHA256}; download it again")
    return jpegs
