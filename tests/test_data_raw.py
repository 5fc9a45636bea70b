"""Raw files: found in every layout, verified, and refused in one line when they are not right."""

import csv
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flaxdigits.data.archives import read_zip_entry, zip_entries
from flaxdigits.data.raw_chinese_mnist import raw_order, read_chinese_mnist, read_jpegs
from flaxdigits.data.raw_mnist import SHA256, read_mnist
from flaxdigits.errors import FlaxdigitsError

LABELS = "t10k-labels-idx1-ubyte"
ARCHIVE = "chinese_mnist/chinese_mnist.zip"
# Of the uint8 array [15000, 64, 64] in the CSV's row order, decoded with Pillow.
PIXELS = "28bdfaa006f389c07dd8d8aab32f9b83e45a3dbf65e7637362e772620315b34e"


@pytest.fixture(scope="module")
def jpegs(raw_data_dir) -> dict[tuple[int, int, int], bytes]:
    with zipfile.ZipFile(raw_data_dir / ARCHIVE) as archive:
        return {key: archive.read(kaggle_name(key)) for key in raw_order()}


def kaggle_name(key: tuple[int, int, int]) -> str:
    return "data/data/input_{}_{}_{}.jpg".format(*key)


def article_name(key: tuple[int, int, int]) -> str:
    return "Locate{},{},{}.jpg".format(*key)


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def error_line(read, raw_data_dir: Path) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        read(raw_data_dir)
    assert str(raw_data_dir) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_mnist(raw_data_dir):
    mnist = read_mnist(raw_data_dir)
    assert mnist.images.shape == (70_000, 28, 28) and mnist.images.dtype == np.uint8
    assert mnist.labels.dtype == np.int32 and mnist.writers is None
    # Counts of each digit in the training and the test labels, as published with the set.
    assert np.bincount(mnist.labels[:60_000]).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.labels[60_000:]).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_missing(tmp_path):
    message = error_line(read_mnist, tmp_path)
    assert "contains neither train-images-idx3-ubyte.gz nor train-images-idx3-ubyte," in message


@pytest.fixture
def mnist_copy(raw_data_dir, tmp_path) -> Path:
    """A raw folder with links to MNIST's official files."""
    (tmp_path / "mnist").mkdir()
    for name in SHA256:
        (tmp_path / "mnist" / f"{name}.gz").symlink_to(raw_data_dir / "mnist" / f"{name}.gz")
    return tmp_path


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1:]


DAMAGES = {
    "cut": lambda content: content[:-1],
    "flipped": lambda content: flip(content, 2000),
    "empty": lambda content: b"",
    "other labels": lambda content: gzip.compress(flip(gzip.decompress(content), 100)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_mnist_damaged(mnist_copy, damage):
    path = mnist_copy / "mnist" / f"{LABELS}.gz"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(DAMAGES[damage](content))
    assert f"{path}: " in error_line(read_mnist, mnist_copy)


LAYOUTS = {
    "unzipped": ("mnist/{}", gzip.decompress),
    "with a dot": ("mnist/{}", gzip.decompress),
    "compressed again": ("mnist/{}.gz", lambda content: gzip.compress(gzip.decompress(content), 1)),
    "torchvision's": ("MNIST/raw/{}", gzip.decompress),
    "torchvision's, compressed": ("MNIST/raw/{}.gz", bytes),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mnist_in_other_layouts(mnist_copy, layout):
    form, convert = LAYOUTS[layout]
    for name in SHA256:
        compressed = mnist_copy / "mnist" / f"{name}.gz"
        content = convert(compressed.read_bytes())
        compressed.unlink()
        if layout == "with a dot":
            name = name.replace("-idx", ".idx")
        path = mnist_copy / form.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    mnist = read_mnist(mnist_copy)
    assert mnist.images.shape == (70_000, 28, 28)
    assert mnist.labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_a_damaged_copy_of_mnist_does_not_hide_another(mnist_copy):
    path = mnist_copy / "mnist" / f"{LABELS}.gz"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])
    path.with_suffix("").write_bytes(gzip.decompress(content))
    assert len(read_mnist(mnist_copy).labels) == 70_000


def test_chinese_mnist_from_kaggles_zip(raw_data_dir):
    chinese = read_chinese_mnist(raw_data_dir)
    assert hashlib.sha256(chinese.images).hexdigest() == PIXELS
    with zipfile.ZipFile(raw_data_dir / ARCHIVE) as archive:
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("chinese_mnist.csv"), "utf-8")))
    for column, field in ((chinese.writers, "suite_id"), (chinese.samples, "sample_id"),
                          (chinese.labels + 1, "code")):
        np.testing.assert_array_equal(column, [int(row[field]) for row in rows])
        assert column.dtype == np.int32


def test_chinese_mnist_unzipped(jpegs, tmp_path):
    folder = tmp_path / "chinese_mnist" / "data" / "data"
    folder.mkdir(parents=True)
    for key, content in jpegs.items():
        (tmp_path / "chinese_mnist" / kaggle_name(key)).write_bytes(content)
    (tmp_path / "chinese_mnist" / "broken.zip").write_bytes(b"PK")  # hides nothing
    assert read_jpegs(tmp_path) == jpegs


def test_chinese_mnist_from_the_article(jpegs, tmp_path):
    py7zr = pytest.importorskip("py7zr", reason="needs the extra [article]")
    # The article's 7z in the zip that its address gives, stored for speed.
    inner = io.BytesIO()
    with py7zr.SevenZipFile(inner, "w", filters=[{"id": py7zr.FILTER_COPY}]) as archive:
        for key, content in jpegs.items():
            archive.writestr(content, f"Raw Dataset/{article_name(key)}")
    write_zip(tmp_path / "chinese_mnist" / "10280831.zip", {"Raw Dataset.7z": inner.getvalue()})
    before = sorted(tmp_path.rglob("*"))
    assert read_jpegs(tmp_path) == jpegs
    assert sorted(tmp_path.rglob("*")) == before  # nothing unpacked to disk


def test_the_article_without_py7zr_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "py7zr", None)
    (tmp_path / "chinese_mnist").mkdir()
    (tmp_path / "chinese_mnist" / "Raw Dataset.7z").write_bytes(b"7z\xbc\xaf'\x1c" + bytes(100))
    assert "pip install -e '.[article]'" in error_line(read_chinese_mnist, tmp_path)


def test_a_damaged_7z(tmp_path):
    pytest.importorskip("py7zr", reason="needs the extra [article]")
    (tmp_path / "chinese_mnist").mkdir()
    (tmp_path / "chinese_mnist" / "Raw Dataset.7z").write_bytes(b"7z\xbc\xaf'\x1c" + bytes(100))
    assert "truncated or damaged" in error_line(read_chinese_mnist, tmp_path)


def test_a_7z_with_a_corrupt_stream(tmp_path):
    py7zr = pytest.importorskip("py7zr", reason="needs the extra [article]")
    path = tmp_path / "chinese_mnist" / "Raw Dataset.7z"
    path.parent.mkdir()
    with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_LZMA2}]) as archive:
        archive.writestr(bytes(range(256)) * 40, f"Raw Dataset/{article_name((1, 1, 1))}")
    content = bytearray(path.read_bytes())
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)
    assert "truncated or damaged" in error_line(read_chinese_mnist, tmp_path)


def test_chinese_mnist_missing(tmp_path):
    assert "no such folder" in error_line(read_chinese_mnist, tmp_path)
    (tmp_path / "chinese_mnist").mkdir()
    assert "contains 0 of" in error_line(read_chinese_mnist, tmp_path)


def test_chinese_mnist_truncated(raw_data_dir, tmp_path):
    (tmp_path / "chinese_mnist").mkdir()
    shutil.copy(raw_data_dir / ARCHIVE, tmp_path / ARCHIVE)
    os.truncate(tmp_path / ARCHIVE, 1_000_000)
    assert "truncated or damaged" in error_line(read_chinese_mnist, tmp_path)


def test_chinese_mnist_altered_or_incomplete(jpegs, tmp_path):
    files = {kaggle_name(key): content for key, content in jpegs.items()}
    name, content = next(iter(files.items()))
    write_zip(tmp_path / ARCHIVE, files | {name: content + b"\0"})
    assert "checksum mismatch" in error_line(read_chinese_mnist, tmp_path)
    del files[name]
    write_zip(tmp_path / ARCHIVE, files)
    assert "contains 14999 of" in error_line(read_chinese_mnist, tmp_path)


def test_an_archive_in_capitals(jpegs, tmp_path):
    write_zip(tmp_path / "chinese_mnist" / "ARCHIVE.ZIP",
              {kaggle_name(key): content for key, content in jpegs.items()})
    assert read_jpegs(tmp_path) == jpegs


@pytest.mark.parametrize("broken", ["chinese_mnist.zip", "a.zip", "z.7z"])
def test_a_broken_archive_does_not_hide_a_whole_one(raw_data_dir, jpegs, tmp_path, broken):
    (tmp_path / "chinese_mnist").mkdir()
    (tmp_path / "chinese_mnist" / "archive.zip").symlink_to(raw_data_dir / ARCHIVE)
    (tmp_path / "chinese_mnist" / broken).write_bytes(b"7z\xbc\xaf'\x1c broken")
    assert read_jpegs(tmp_path) == jpegs


def test_a_name_of_thousands_of_digits(tmp_path):
    write_zip(tmp_path / ARCHIVE, {f"input_{'1' * 5_000}_1_1.jpg": b"x"})
    assert "contains 0 of" in error_line(read_chinese_mnist, tmp_path)


METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED,
           "bzip2": zipfile.ZIP_BZIP2, "LZMA": zipfile.ZIP_LZMA}


@pytest.mark.parametrize("method", METHODS)
def test_compressed_in_any_way(jpegs, tmp_path, method):
    entries = dict(list(jpegs.items())[:20])
    path = tmp_path / "small.zip"
    with zipfile.ZipFile(path, "w", METHODS[method]) as archive:
        for key, content in entries.items():
            archive.writestr(kaggle_name(key), content)
    with path.open("rb") as file:
        assert [read_zip_entry(file, entry) for entry in zip_entries(file)] == [*entries.values()]


@pytest.mark.parametrize("method", METHODS)
def test_every_inverted_byte_of_a_zip_is_one_line(tmp_path, method):
    path = tmp_path / ARCHIVE
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", METHODS[method]) as archive:
        archive.writestr(kaggle_name((1, 1, 1)), bytes(range(200)))
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(
            content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1:])
        assert f"{path}: " in error_line(read_chinese_mnist, tmp_path)


def bomb(path: Path) -> None:
    """600 images of a MiB each, as the zip declares."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in raw_order()[:600]:
            archive.writestr(kaggle_name(key), bytes(1 << 20), compresslevel=1)


def lying_bomb(path: Path) -> None:
    """An image of 500 MB that the zip declares as one of 4,000 bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(kaggle_name((1, 1, 1)), bytes(500_000_000))
        archive.getinfo(kaggle_name((1, 1, 1))).file_size = 4_000  # in the directory alone


@pytest.mark.parametrize(("write", "message"), [
    pytest.param(bomb, "is declared as 1048576 bytes, and at most", id="declared"),
    pytest.param(lying_bomb, "does not have its declared size of 4000 bytes", id="not declared",
                 marks=pytest.mark.slow),
])
def test_what_expands_beyond_measure_takes_no_memory(tmp_path, write, message):
    path = tmp_path / ARCHIVE
    path.parent.mkdir()
    write(path)
    code = """
import resource, sys
from pathlib import Path
from flaxdigits.data.raw_chinese_mnist import read_archive
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28),) * 2)
read_archive(Path(sys.argv[1]))
"""
    process = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    last = process.stderr.splitlines()[-1]
    assert last.startswith("flaxdigits.errors.FlaxdigitsError") and message in last


@pytest.mark.parametrize("kind", ["a FIFO", "a device"])
@pytest.mark.parametrize("name", [
    "mnist/train-images-idx3-ubyte.gz", ARCHIVE, "chinese_mnist/input_1_1_1.jpg"])
def test_only_regular_files_are_read(tmp_path, name, kind):
    path = tmp_path / name
    path.parent.mkdir()
    if kind == "a FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    read = read_mnist if name.startswith("mnist") else read_chinese_mnist
    assert f"{path}: cannot be read (not a regular file)" in error_line(read, tmp_path)


def test_an_archive_never_writes_anywhere(tmp_path):
    raw = tmp_path / "deep" / "raw"
    write_zip(raw / ARCHIVE, {"../../input_1_1_1.jpg": b"x", "/tmp/input_1_1_2.jpg": b"x"})
    before = sorted(tmp_path.rglob("*"))
    assert "contains 2 of" in error_line(read_chinese_mnist, raw)
    assert sorted(tmp_path.rglob("*")) == before
