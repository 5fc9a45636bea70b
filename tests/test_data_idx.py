"""Folders of idx files as data sets publish them, and what stands in the place of a file."""

import gzip
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flaxdigits.config import DataConfig
from flaxdigits.data.dataset import DataLocations, Dataset, load_dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 6, 5), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0], np.uint8)
MNIST = {"train-images-idx3-ubyte": IMAGES, "train-labels-idx1-ubyte": LABELS}


def idx(array: np.ndarray) -> bytes:
    code = 0x0C if array.dtype == ">i4" else 0x08
    return (bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            + array.tobytes())


def write(folder: Path, files: dict[str, np.ndarray]) -> None:
    for name, array in files.items():
        content = idx(array)
        (folder / name).write_bytes(
            gzip.compress(content) if name.endswith(".gz") else content)


def load(folder: Path) -> Dataset:
    return load_dataset(DataConfig(dataset="idx_files", folder=str(folder)), DataLocations())


def error_message(folder: Path) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def qmnist(labels: np.ndarray) -> np.ndarray:
    """QMNIST's eight columns, of which the first is the class and the third the writer."""
    columns = np.tile(np.arange(90, 98), (len(labels), 1)).astype(">i4")
    columns[:, 0], columns[:, 2] = labels, np.arange(len(labels)) % 3 + 100
    return columns


NAMES = {
    "dotted": ("train-images.idx3-ubyte", "train-labels.idx1-ubyte",
               "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
    "test": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
             "test-images-idx3-ubyte", "test-labels-idx1-ubyte"),
    "prefix": ("digits-train-images-idx3-ubyte.gz", "digits-train-labels-idx1-ubyte.gz",
               "digits-test-images-idx3-ubyte.gz", "digits-test-labels-idx1-ubyte.gz"),
    "capitals": ("TRAIN-IMAGES-IDX3-UBYTE.GZ", "TRAIN-LABELS-IDX1-UBYTE",
                 "T10K-IMAGES-IDX3-UBYTE", "T10K-LABELS-IDX1-UBYTE"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_other_names(tmp_path, kind):
    arrays = (IMAGES[:5], LABELS[:5], IMAGES[5:], LABELS[5:])
    write(tmp_path, dict(zip(NAMES[kind], arrays, strict=True)))
    data = load(tmp_path)
    np.testing.assert_array_equal(data.images[..., 0], IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.official_train == 5


def test_qmnist(tmp_path):
    write(tmp_path, {
        "qmnist-train-images-idx3-ubyte.gz": IMAGES,
        "qmnist-train-labels-idx2-int.gz": qmnist(LABELS),
        "qmnist-test-images-idx3-ubyte.gz": IMAGES[:3],
        "qmnist-test-labels-idx2-int.gz": qmnist(LABELS[:3]),
    })
    data = load(tmp_path)
    assert data.labels.tolist() == [*LABELS, *LABELS[:3]]
    assert (data.class_names, data.official_train) == (("0", "1", "2"), 7)
    assert data.writers.tolist() == [100, 101, 102, 100, 101, 102, 100, 100, 101, 102]
    config = DataConfig("idx_files", "writers", folds=3, folder=str(tmp_path))
    parts = split_indices(config, data)
    assert sorted(len(set(data.writers[rows])) for rows in parts.values()) == [1, 1, 1]


def test_writers_are_no_part_of_the_fingerprint_and_are_of_the_identity(tmp_path):
    identities = []
    for name in ("with", "without"):
        labels = qmnist(LABELS) if name == "with" else LABELS
        kind = "idx2-int" if name == "with" else "idx1-ubyte"
        (tmp_path / name).mkdir()
        write(tmp_path / name, {
            "train-images-idx3-ubyte": IMAGES, f"train-labels-{kind}": labels})
        identities.append(load(tmp_path / name).identity())
    # Runs of earlier versions, which read no writers, go on.
    assert identities[0]["fingerprint"] == identities[1]["fingerprint"]
    assert identities[0].keys() - identities[1].keys() == {"writers"}


def test_parts_with_other_columns_are_refused(tmp_path):
    write(tmp_path, {
        "train-images-idx3-ubyte": IMAGES, "train-labels-idx2-int": qmnist(LABELS),
        "t10k-images-idx3-ubyte": IMAGES, "t10k-labels-idx1-ubyte": LABELS})
    assert "the labels of the two parts have different numbers of columns" in error_message(
        tmp_path)


def test_emnist_is_turned_upright_and_has_no_class_without_images(tmp_path, caplog):
    prefix = "emnist-letters-"
    write(tmp_path, {
        f"{prefix}train-images-idx3-ubyte.gz": IMAGES,
        f"{prefix}train-labels-idx1-ubyte.gz": LABELS + 1,
        f"{prefix}test-images-idx3-ubyte.gz": IMAGES[:2],
        f"{prefix}test-labels-idx1-ubyte.gz": LABELS[:2] + 1,
    })
    data = load(tmp_path)
    np.testing.assert_array_equal(data.images[:7, ..., 0], IMAGES.transpose(0, 2, 1))
    assert data.class_names == ("1", "2", "3")
    assert data.labels.tolist() == [*LABELS, *LABELS[:2]]
    (record,) = caplog.records
    assert "transposed back" in record.message and str(tmp_path) in record.message


def test_emnist_under_other_names_is_suspected(tmp_path, caplog):
    labels = np.arange(124_800, dtype=np.uint8) % 26 + 1
    write(tmp_path, {
        "train-images-idx3-ubyte": np.zeros((124_800, 2, 1), np.uint8),
        "train-labels-idx1-ubyte": labels,
    })
    assert load(tmp_path).class_names == tuple(map(str, range(1, 27)))
    (record,) = caplog.records
    assert "emnist-..." in record.message


def test_one_class_is_refused(tmp_path):
    write(tmp_path, MNIST | {"train-labels-idx1-ubyte": np.full(7, 3, np.uint8)})
    assert "all training images are of one class, 3" in error_message(tmp_path)


def test_a_class_that_only_the_test_part_has_is_refused(tmp_path):
    write(tmp_path, MNIST | {
        "t10k-images-idx3-ubyte": IMAGES, "t10k-labels-idx1-ubyte": LABELS + 1})
    assert "the label 3, which no training image has" in error_message(tmp_path)


def test_negative_labels_are_refused(tmp_path):
    write(tmp_path, {"train-images-idx3-ubyte": IMAGES,
                     "train-labels-idx2-int": qmnist(LABELS.astype(int) - 1)})
    assert "has the label -1" in error_message(tmp_path)


def test_names_that_are_not_recognized(tmp_path):
    write(tmp_path, {"images.idx": IMAGES, "labels.idx": LABELS})
    message = error_message(tmp_path)
    assert "contains neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz" in message


def test_several_data_sets_in_one_folder(tmp_path):
    write(tmp_path, MNIST | {"emnist-digits-train-images-idx3-ubyte": IMAGES})
    assert "several data sets (emnist-digits, without a prefix)" in error_message(tmp_path)


def test_two_files_for_one_part(tmp_path):
    write(tmp_path, MNIST | {"t10k-images-idx3-ubyte": IMAGES, "test-images-idx3-ubyte": IMAGES})
    assert "contains both t10k-images-idx3-ubyte and test-images-idx3-ubyte" in error_message(
        tmp_path)


def test_a_gzipped_header_that_promises_gigabytes_takes_no_memory(tmp_path):
    write(tmp_path, MNIST)
    header = bytes([0, 0, 8, 3]) + np.array([1 << 11, 1 << 10, 1 << 10], ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(gzip.compress(header + bytes(100)))
    code = """
import resource, sys
from pathlib import Path
from flaxdigits.data.idx_folder import read_idx_folder
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28),) * 2)
read_idx_folder(Path(sys.argv[1]))
"""
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "it has only 100" in process.stderr.splitlines()[-1]


def put_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # an absolute one may be too long


IN_PLACE_OF_A_FILE = {"a FIFO": os.mkfifo, "a device": put_device, "a socket": put_socket}


@pytest.mark.parametrize("kind", IN_PLACE_OF_A_FILE)
def test_only_regular_files_are_read(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, MNIST)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.unlink()
    IN_PLACE_OF_A_FILE[kind](path)
    assert f"{path}: cannot be read (not a regular file)" in error_message(tmp_path)
