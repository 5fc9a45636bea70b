"""NumPy's files as data sets: what is read, and what can be wrong with a file."""

import io
import os
import zipfile

import numpy as np
import pytest

from flaxdigits.config import DataConfig
from flaxdigits.data import npz
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.data.splits import split_indices, splits_of
from flaxdigits.errors import FlaxdigitsError

pytest_plugins = ["tiny_run"]

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (9, 6, 5), np.uint8)
LABELS = np.array([4, 7, 4, 7, 9, 9, 4, 7, 9])


def load(path, **fields):
    return load_dataset(DataConfig("npz", folder=str(path), **fields), DataLocations())


def error_message(path) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_images_and_labels(tmp_path):
    data = load(save(tmp_path / "a.npz", images=IMAGES, labels=LABELS))
    np.testing.assert_array_equal(data.images, IMAGES[..., None])
    assert data.class_names == ("4", "7", "9") and data.labels.dtype == np.int32
    np.testing.assert_array_equal(np.array([4, 7, 9])[data.labels], LABELS)
    assert data.writers is None and data.official_train is None
    assert splits_of(data) == ("holdout", "random", "fractions", "kfold")


def test_compressed_with_names_and_groups(tmp_path):
    np.savez_compressed(
        tmp_path / "a.npz", images=IMAGES, labels=[0, 1] * 4 + [0], class_names=["零", "one"],
        groups=np.arange(9) // 3)
    data = load(tmp_path / "a.npz")
    assert data.class_names == ("零", "one")
    assert data.writers.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    parts = split_indices(DataConfig("npz", "writers", folds=3, folder="a"), data)
    assert sorted(len(np.unique(data.writers[rows])) for rows in parts.values()) == [1, 1, 1]


@pytest.mark.parametrize("names", [
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels")])
def test_parts_as_keras_and_others_name_them(tmp_path, names):
    arrays = dict(zip(names, (IMAGES[:6], LABELS[:6], IMAGES[6:], LABELS[6:]), strict=True))
    data = load(save(tmp_path / "mnist.npz", **arrays))
    assert data.official_train == 6 and not data.validation
    parts = split_indices(DataConfig("npz", "official", folder="a"), data)
    assert (parts["train"].tolist(), parts["test"].tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7, 8])


def test_a_validation_part_and_columns_of_labels(tmp_path, caplog):
    data = load(save(
        tmp_path / "medmnist.npz", train_images=IMAGES[:5], train_labels=LABELS[:5, None],
        val_images=IMAGES[5:7], val_labels=LABELS[5:7, None], test_images=IMAGES[7:],
        test_labels=LABELS[7:, None], ids=np.arange(9)))
    assert (data.official_train, data.validation) == (5, range(5, 7))
    parts = split_indices(DataConfig("npz", "holdout", folder="a"), data)
    assert {name: sorted(rows) for name, rows in parts.items()} == {
        "train": [0, 1, 2, 3, 4], "validation": [5, 6], "test": [7, 8]}
    assert "ignored arrays: ids" in caplog.text


def test_arrays_in_fortran_order_are_read(tmp_path):
    path = save(tmp_path / "a.npz", images=np.asfortranarray(IMAGES), labels=LABELS)
    np.testing.assert_array_equal(load(path).images[..., 0], IMAGES)


WRONG = {
    "no labels": ({"images": IMAGES}, "lacks images and labels"),
    "other names": ({"a": IMAGES}, "it contains a"),
    "test without labels": (
        {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES},
        "has x_test but lacks test_labels"),
    "floats": ({"images": IMAGES / 255, "labels": LABELS}, "images must be uint8"),
    "flat": ({"images": IMAGES.reshape(9, -1), "labels": LABELS}, "must be of shape [n, height"),
    "no pixels": ({"images": IMAGES[:, :0], "labels": LABELS}, "must be of shape [n, height"),
    "fewer labels": ({"images": IMAGES, "labels": LABELS[:8]}, "the labels of train must be"),
    "one-hot labels": (
        {"images": IMAGES, "labels": np.eye(3)[LABELS % 3]}, "the labels of train must be"),
    "float labels": ({"images": IMAGES, "labels": LABELS / 2}, "labels must be integers"),
    "one class": ({"images": IMAGES, "labels": LABELS * 0}, "all training images are of one class"),
    "too few names": (
        {"images": IMAGES, "labels": LABELS, "class_names": ["a", "b"]},
        "labels must be indices into the 2 class_names, 0 to 1, got 4 to 9"),
    "names twice": (
        {"images": IMAGES, "labels": LABELS % 2, "class_names": ["a", "a"]},
        "class_names must be unique"),
    "numbers as names": (
        {"images": IMAGES, "labels": LABELS % 2, "class_names": [1, 2]},
        "class_names must be strings"),
    "pickled names": (
        {"images": IMAGES, "labels": LABELS % 2, "class_names": np.array(["a", "b"], object)},
        "class_names: an array of Python objects"),
    "pickled images": (
        {"images": IMAGES.astype(object), "labels": LABELS}, "images: an array of Python objects"),
    "two sizes": (
        {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :4], "y_test": LABELS},
        "the images of test are [4, 5] and those of train [6, 5]"),
    "a new class in the test part": (
        {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:1], "y_test": [5]},
        "a validation or test image has the label 5"),
    "writers of one part": (
        {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS,
         "train_writers": LABELS}, "either all parts or none must have writers"),
    "writers that are no numbers": (
        {"images": IMAGES, "labels": LABELS, "writers": ["a"] * 9}, "writers must be integers"),
    "writers beyond int32": (
        {"images": IMAGES, "labels": LABELS, "writers": LABELS + 2**40},
        "writers must fit in an int32"),
}


@pytest.mark.parametrize(("arrays", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_refused(tmp_path, arrays, message):
    assert message in error_message(save(tmp_path / "a.npz", **arrays))


def test_files_that_cannot_be_read(tmp_path):
    assert "No such file" in error_message(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "not a regular file" in error_message(tmp_path / "folder.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    assert "not a regular file" in error_message(tmp_path / "pipe.npz")
    (tmp_path / "text.npz").write_text("images")
    assert "not an .npz file, or damaged" in error_message(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", IMAGES)
    assert "not an .npz file, or damaged" in error_message(tmp_path / "one.npy")
    whole = save(tmp_path / "whole.npz", images=IMAGES, labels=LABELS).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-50])
    assert "not an .npz file, or damaged" in error_message(tmp_path / "cut.npz")
    altered = bytearray(whole)
    altered[whole.index(IMAGES.tobytes()[:20])] ^= 1
    (tmp_path / "altered.npz").write_bytes(altered)
    assert "checksum mismatch" in error_message(tmp_path / "altered.npz")


def test_what_a_header_declares_is_checked_before_memory_is_taken(tmp_path):
    header = npy(np.zeros((3, 4, 5), np.uint8)).replace(b"(3, 4, 5)", b"(3, 4,5000000000)")[:128]
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("images.npy", header + bytes(60))
        file.writestr("labels.npy", npy(LABELS))
    assert "its header declares [3, 4, 5000000000] of uint8, but it has" in error_message(
        tmp_path / "a.npz")


def test_a_zip_that_expands_beyond_the_limit_is_not_expanded(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "_LARGEST", 1000)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.zeros((9, 60, 60), np.uint8), labels=LABELS)
    assert "at most 1000 are expected" in error_message(path)


def test_custom_data_need_no_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert load(save(tmp_path / "a.npz", images=IMAGES, labels=LABELS)).name == "npz"


def test_data_folder_must_name_the_file(launch_here, tmp_path):
    completed = launch_here("--mode=prepare", "--experiment=dense_cnn", "--set=data.dataset=npz")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert "data.folder must name an .npz file with data.dataset=npz" in completed.stderr
    path = save(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    completed = launch_here("--mode=prepare", "--experiment=dense_cnn", "--set=data.dataset=npz",
                            f"--set=data.folder={path}", "--set=data.split=random")
    assert completed.returncode == 0
    assert "a.npz (npz): 9 images of 6x5, 3 classes" in completed.stdout
