"""Chinese MNIST's 15,000 JPEGs: in which archives they come, their order, their verification.

K. Nazarpour, M. Chen (2017), Handwritten Chinese Numbers, Newcastle University,
doi 10.17634/137930-3, CC BY 4.0; on Kaggle as gpreda/chinese-mnist. 100 writers ("suites") wrote
15 characters ("codes") 10 times each ("samples"). The two addresses are untested, and so is
whether the article's JPEGs are Kaggle's byte for byte: if they are not, it is refused by checksum.
"""

import hashlib
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image

from flaxdigits.data.examples import Examples
from flaxdigits.data.fetch import TIMEOUTS, Timeouts, fetch
from flaxdigits.errors import FlaxdigitsError

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
_IN_KAGGLES_ZIP = re.compile(r"input_(\d+)_(\d+)_(\d+)\.jpg")
_IN_THE_ARTICLE = re.compile(r"Locate(\d+),(\d+),(\d+)\.jpg")
_LARGEST_JPEG = 1 << 20  # the real ones are below 2 kB
_LARGEST_ARCHIVE = 1 << 28
_7Z_MAGIC = b"7z\xbc\xaf'\x1c"

Key = tuple[int, int, int]  # suite, sample, code


def raw_order() -> list[Key]:
    """The 15,000 keys in the row order of Kaggle's chinese_mnist.csv.

    The codes go 10 to 15, then 1 to 9; within one, suites and samples are sorted as text.
    """
    codes = [*range(10, 16), *range(1, 10)]
    return [(suite, sample, code) for code in codes
            for suite in sorted(_WRITERS, key=str) for sample in sorted(_SAMPLES, key=str)]


def read_chinese_mnist(raw_data_dir: Path) -> Examples:
    """The 15,000 images in the CSV's row order, decoded. Labels are code - 1.

    Raises:
      FlaxdigitsError: as `read_jpegs`.
    """
    jpegs, order = read_jpegs(raw_data_dir), raw_order()
    writers, samples, codes = np.array(order, np.int32).T
    images = np.stack([np.asarray(Image.open(io.BytesIO(jpegs[key])).convert("L"))
                       for key in order])
    return Examples(images, codes - 1, writers, samples)


def read_jpegs(raw_data_dir: Path) -> dict[Key, bytes]:
    """The 15,000 JPEGs in `<raw_data_dir>/chinese_mnist`, verified.

    That folder holds Kaggle's zip (under any name) or its files unpacked, or the original
    article's zip, its `Raw Dataset.7z`, or that unpacked.

    Raises:
      FlaxdigitsError: nothing is there, it cannot be read, or the JPEGs are not the 15,000 meant.
    """
    folder = raw_data_dir / FOLDER
    archives = [path for path in folder.glob("*") if path.suffix in (".zip", ".7z")]
    if archives:
        return read_archive(min(archives, key=lambda path: path.name != ARCHIVE))
    if not folder.is_dir():
        raise FlaxdigitsError(
            f"{folder}: no such folder; put Kaggle's {ARCHIVE} there, or leave --raw_data_dir "
            "out to download it")
    try:
        jpegs = dict(_from_folder(folder))
    except OSError as error:
        raise FlaxdigitsError(
            f"{error.filename}: cannot be read ({error.strerror}); get it anew") from error
    return _verified(jpegs, folder)


def fetch_chinese_mnist(
    raw_data_dir: Path,
    addresses: Sequence[str] = ADDRESSES,
    timeouts: Timeouts = TIMEOUTS,
) -> None:
    """Downloads the archive to `<raw_data_dir>/chinese_mnist`, unless it is there and whole.

    Raises:
      FetchError: it was to be had nowhere.
    """
    path = raw_data_dir / FOLDER / ARCHIVE
    try:
        read_archive(path)
    except FlaxdigitsError:
        fetch(addresses, path, read_archive, timeouts)


def read_archive(path: Path) -> dict[Key, bytes]:
    """The JPEGs of Kaggle's zip, the article's zip or its 7z, verified; read in memory only.

    Raises:
      FlaxdigitsError: the archive is damaged, or its JPEGs are not the 15,000 meant.
    """
    try:
        with path.open("rb") as file:
            is_7z = file.read(len(_7Z_MAGIC)) == _7Z_MAGIC
            file.seek(0)
            jpegs = dict(_from_7z(file, path) if is_7z else _from_zip(file, path))
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise FlaxdigitsError(
            f"{path}: truncated or damaged ({error}); get the archive anew") from error
    return _verified(jpegs, path)


def _key(name: str) -> Key | None:
    """The key that a file's name tells, whatever folder it claims to be in."""
    name = PurePosixPath(name).name
    match = _IN_KAGGLES_ZIP.fullmatch(name) or _IN_THE_ARTICLE.fullmatch(name)
    return tuple(map(int, match.groups())) if match else None


def _from_zip(file: BinaryIO, path: Path) -> Iterator[tuple[Key, bytes]]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            key = _key(entry.filename)
            if key and entry.file_size <= _LARGEST_JPEG:
                yield key, archive.read(entry)
            elif entry.filename.endswith(".7z") and entry.file_size <= _LARGEST_ARCHIVE:
                yield from _from_7z(io.BytesIO(archive.read(entry)), path)


def _from_7z(file: BinaryIO, path: Path) -> Iterator[tuple[Key, bytes]]:
    try:
        import py7zr
    except ImportError as error:
        raise FlaxdigitsError(
            f"{path}: the original article is a 7z archive, and reading it needs py7zr; "
            "pip install -e '.[article]'") from error
    jpegs = py7zr.io.BytesIOFactory(_LARGEST_JPEG)
    try:
        with py7zr.SevenZipFile(file) as archive:
            keys = {name: key for name in archive.getnames() if (key := _key(name))}
            archive.extract(targets=list(keys), factory=jpegs)
    except (py7zr.exceptions.ArchiveError, lzma.LZMAError) as error:
        raise FlaxdigitsError(
            f"{path}: truncated or damaged ({error}); get the archive anew") from error
    for name, content in jpegs.products.items():
        content.seek(0)
        yield keys[name], content.read()


def _from_folder(folder: Path) -> Iterator[tuple[Key, bytes]]:
    for path in folder.rglob("*.jpg"):
        if key := _key(path.name):
            yield key, path.read_bytes()


def _verified(jpegs: dict[Key, bytes], path: Path) -> dict[Key, bytes]:
    expected = len(_WRITERS) * len(_SAMPLES) * len(_CODES)
    if jpegs.keys() != set(raw_order()):
        raise FlaxdigitsError(
            f"{path}: holds {len(jpegs)} of Chinese MNIST's images instead of all {expected:,}; "
            "get it anew")
    digest = hashlib.sha256()
    for key in sorted(jpegs):
        digest.update(jpegs[key])
    if digest.hexdigest() != SHA256:
        raise FlaxdigitsError(
            f"{path}: altered, the sha256 over its JPEGs is {digest.hexdigest()} and Chinese "
            f"MNIST's is {SHA256}; get it anew")
    return jpegs
