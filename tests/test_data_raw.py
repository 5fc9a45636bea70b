"""Raw files: found in every layout, verified, and refused in one line when they are not right."""

import csv
import hashlib
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flaxdigits.data.raw_chinese_mnist import raw_order, read_chinese_mnist, read_jpegs
from flaxdigits.data.raw_mnist import SHA256, read_mnist
from flaxdigits.errors import FlaxdigitsError

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


def told_in_a_line(read, raw_data_dir: Path) -> str:
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
    told = told_in_a_line(read_mnist, tmp_path)
    assert "train-images-idx3-ubyte.gz: cannot be read (No such file" in told


@pytest.mark.parametrize("damage", [
    lambda content: content[:-1],
    lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    lambda content: b"",
])
def test_mnist_damaged(raw_data_dir, tmp_path, damage):
    (tmp_path / "mnist").mkdir()
    for name in SHA256:
        (tmp_path / "mnist" / name).symlink_to(raw_data_dir / "mnist" / name)
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(content))
    assert f"{path}: truncated or altered" in told_in_a_line(read_mnist, tmp_path)


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
    assert "pip install -e '.[article]'" in told_in_a_line(read_chinese_mnist, tmp_path)


def test_a_damaged_7z(tmp_path):
    pytest.importorskip("py7zr", reason="needs the extra [article]")
    (tmp_path / "chinese_mnist").mkdir()
    (tmp_path / "chinese_mnist" / "Raw Dataset.7z").write_bytes(b"7z\xbc\xaf'\x1c" + bytes(100))
    assert "truncated or damaged" in told_in_a_line(read_chinese_mnist, tmp_path)


def test_a_7z_with_a_corrupt_stream(tmp_path):
    py7zr = pytest.importorskip("py7zr", reason="needs the extra [article]")
    path = tmp_path / "chinese_mnist" / "Raw Dataset.7z"
    path.parent.mkdir()
    with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_LZMA2}]) as archive:
        archive.writestr(bytes(range(256)) * 40, f"Raw Dataset/{article_name((1, 1, 1))}")
    content = bytearray(path.read_bytes())
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)
    assert "truncated or damaged" in told_in_a_line(read_chinese_mnist, tmp_path)


def test_chinese_mnist_missing(tmp_path):
    assert "no such folder" in told_in_a_line(read_chinese_mnist, tmp_path)
    (tmp_path / "chinese_mnist").mkdir()
    assert "holds 0 of" in told_in_a_line(read_chinese_mnist, tmp_path)


def test_chinese_mnist_truncated(raw_data_dir, tmp_path):
    (tmp_path / "chinese_mnist").mkdir()
    shutil.copy(raw_data_dir / ARCHIVE, tmp_path / ARCHIVE)
    os.truncate(tmp_path / ARCHIVE, 1_000_000)
    assert "truncated or damaged" in told_in_a_line(read_chinese_mnist, tmp_path)


def test_chinese_mnist_altered_or_incomplete(jpegs, tmp_path):
    files = {kaggle_name(key): content for key, content in jpegs.items()}
    name, content = next(iter(files.items()))
    write_zip(tmp_path / ARCHIVE, files | {name: content + b"\0"})
    assert "altered" in told_in_a_line(read_chinese_mnist, tmp_path)
    del files[name]
    write_zip(tmp_path / ARCHIVE, files)
    assert "holds 14999 of" in told_in_a_line(read_chinese_mnist, tmp_path)


def test_an_archive_never_writes_anywhere(tmp_path):
    raw = tmp_path / "deep" / "raw"
    write_zip(raw / ARCHIVE, {"../../input_1_1_1.jpg": b"x", "/tmp/input_1_1_2.jpg": b"x"})
    before = sorted(tmp_path.rglob("*"))
    assert "holds 2 of" in told_in_a_line(read_chinese_mnist, raw)
    assert sorted(tmp_path.rglob("*")) == before
