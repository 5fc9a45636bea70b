"""Custom data: idx files and folders of images, and what can be wrong with them."""

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxdigits.config import DataConfig
from flaxdigits.data.dataset import DataLocations, Dataset, load_dataset
from flaxdigits.data.photos import image_suffixes
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.run_folder import data_differences

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 6, 5), np.uint8)  # seven of 6x5
LABELS = np.array([0, 1, 2, 0, 1, 2, 0], np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def write_idx(folder: Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def load(dataset: str, folder: Path, **config) -> Dataset:
    return load_dataset(
        DataConfig(dataset=dataset, folder=str(folder), **config), DataLocations())


def error_line(dataset: str, folder: Path, **config) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        load(dataset, folder, **config)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_idx_files(tmp_path):
    write_idx(tmp_path, "train", IMAGES[:5], LABELS[:5])
    write_idx(tmp_path, "t10k", IMAGES[5:], LABELS[5:])
    data = load("idx_files", tmp_path)
    np.testing.assert_array_equal(data.images, IMAGES[..., None])
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.labels.dtype == np.int32
    assert (data.source, data.official_train, data.class_names) == ("real", 5, ("0", "1", "2"))
    parts = split_indices(DataConfig(dataset="idx_files", split="official"), data)
    assert parts["train"].tolist() == [0, 1, 2, 3, 4] and parts["test"].tolist() == [5, 6]


def test_idx_files_without_a_test_part(tmp_path):
    write_idx(tmp_path, "train", IMAGES, LABELS)
    assert load("idx_files", tmp_path).official_train is None


DAMAGED = {
    "last byte missing": (
        "train-images-idx3-ubyte", idx(IMAGES)[:-1], "declares 210 bytes, but it has only 209"),
    "one byte more": ("train-images-idx3-ubyte", idx(IMAGES) + b"x", "has more than that"),
    "cut in the header": (
        "train-images-idx3-ubyte", idx(IMAGES)[:9], "truncated within its header"),
    "labels for images": ("train-images-idx3-ubyte", idx(LABELS), "not an idx file"),
    "empty": ("train-images-idx3-ubyte", b"", "the file is empty"),
    "no rows": ("train-images-idx3-ubyte", idx(IMAGES[:0]), "the empty shape 0 x 6 x 5"),
    "no pixels": (
        "train-images-idx3-ubyte", bytes([0, 0, 8, 3]) + bytes(4) + b"\xff" * 8, "the empty shape"),
    "fewer images": ("train-images-idx3-ubyte", idx(IMAGES[:3]), "7 labels for 3 images"),
    "gzip cut": (
        "train-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS))[:-9], "cannot be read"),
    "gzip altered": (
        "train-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS))[:12] + bytes(30),
        "cannot be read"),
    "test labels missing": ("t10k-images-idx3-ubyte", idx(IMAGES), "contains neither t10k-labels"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_idx_files(tmp_path, name, content, message):
    write_idx(tmp_path, "train", IMAGES, LABELS)
    (tmp_path / name).write_bytes(content)
    assert message in error_line("idx_files", tmp_path)


def test_idx_parts_of_two_sizes(tmp_path):
    write_idx(tmp_path, "train", IMAGES, LABELS)
    write_idx(tmp_path, "t10k", IMAGES[:, :4], LABELS)
    assert "6x5 and test images 4x5" in error_line("idx_files", tmp_path)


def test_a_header_that_promises_a_terabyte_is_not_believed(tmp_path):
    write_idx(tmp_path, "train", IMAGES, LABELS)
    huge = bytes([0, 0, 8, 3]) + np.array([2**32 - 1] * 3, ">u4").tobytes() + b"abc"
    (tmp_path / "train-images-idx3-ubyte").write_bytes(huge)
    assert "at most 2147483648 are supported" in error_line("idx_files", tmp_path)


def test_image_folder(tmp_path):
    for number, name in enumerate(["b/0.png", "b/1.PNG", "a/x.png", "c/y.png", "b/2.png"]):
        write_image(tmp_path / name, IMAGES[number])
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    data = load("image_folder", tmp_path)
    assert data.class_names == ("a", "b", "c") and data.official_train is None
    # One of each class in turn, so that a limit holds them all.
    assert data.labels.tolist() == [0, 1, 2, 1, 1]
    np.testing.assert_array_equal(data.images[..., 0], IMAGES[[2, 0, 3, 1, 4]])


def test_image_folder_with_a_test_part_and_colors(tmp_path):
    colors = np.stack([IMAGES[0]] * 3, axis=-1)
    write_image(tmp_path / "train" / "one" / "0.png", colors)
    write_image(tmp_path / "train" / "two" / "0.png", IMAGES[1])
    write_image(tmp_path / "test" / "two" / "0.png", IMAGES[2])
    data = load("image_folder", tmp_path)
    assert data.official_train == 2 and data.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(data.images[..., 0], IMAGES[:3])


def test_image_folder_resized(tmp_path):
    write_image(tmp_path / "a" / "0.png", np.full((6, 5), 200, np.uint8))
    write_image(tmp_path / "b" / "0.png", np.full((20, 30), 100, np.uint8))
    assert "6x5" in error_line("image_folder", tmp_path)
    data = load("image_folder", tmp_path, image_size=8)
    assert data.images.shape == (2, 8, 8, 1)
    assert (data.images[0, :, :7] == 200).all() and (data.images[1, 1:6] == 100).all()


def test_a_class_that_only_the_test_part_has(tmp_path):
    write_image(tmp_path / "train" / "one" / "0.png", IMAGES[0])
    write_image(tmp_path / "test" / "two" / "0.png", IMAGES[1])
    assert "two: a class without a folder in" in error_line("image_folder", tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_an_unreadable_image_is_named(tmp_path, content):
    write_image(tmp_path / "a" / "0.png", IMAGES[0])
    write_image(tmp_path / "a" / "1.png", IMAGES[1])
    broken = tmp_path / "a" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60] if content is None else content)
    assert f"{broken}: cannot be read as an image" in error_line("image_folder", tmp_path)


def stroke(mode="L"):
    """A black bar of 3x20 on white, 28x28."""
    pixels = np.full((28, 28), 255, np.uint8)
    pixels[4:24, 10:13] = 0
    if mode == "RGBA":
        return Image.fromarray(np.dstack([pixels * 0] * 3 + [255 - pixels]))
    if mode == "LA":
        return Image.fromarray(np.dstack([pixels * 0, 255 - pixels]))
    image = Image.fromarray(pixels)
    if mode == "P":  # index 1 is transparent, 0 is black
        image = Image.fromarray((pixels > 0).astype(np.uint8), mode="P")
        image.putpalette([0] * 6)
        image.info["transparency"] = 1
    elif mode == "turned":
        image = image.transpose(Image.Transpose.ROTATE_90)
        image.getexif()[0x0112] = 6
    elif mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) * 200)
    elif mode == "F":
        values = pixels.astype(np.float32) - 100
        values[0, :4] = np.nan, np.inf, -np.inf, 155
        image = Image.fromarray(values)
    elif mode != "L":
        image = image.convert(mode)
    return image


@pytest.mark.parametrize(("mode", "suffix"), [
    ("RGBA", "png"), ("LA", "png"), ("P", "png"), ("turned", "png"), ("I;16", "png"),
    ("F", "tif"), ("CMYK", "tif"), ("1", "png"), ("L", "pgm"), ("1", "pbm"), ("RGB", "ppm"),
    ("L", "tga"), ("RGBA", "webp")])
def test_every_mode_shows_the_same_stroke(tmp_path, mode, suffix):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    stroke().save(tmp_path / "a" / "0.png")
    image = stroke(mode)
    options = {"lossless": True} if suffix == "webp" else {}
    image.save(tmp_path / "b" / f"0.{suffix}", exif=image.getexif(), **options) \
        if suffix in ("png", "webp") else image.save(tmp_path / "b" / f"0.{suffix}")
    images = load("image_folder", tmp_path).images.astype(int)
    assert np.abs(images[0] - images[1]).max() <= 1


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "jp2", "avif", "tga", "pbm"])
def test_images_of_every_suffix_are_read(tmp_path, suffix):
    if f".{suffix}" not in image_suffixes():
        pytest.skip(f"this Pillow does not read .{suffix}")
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        stroke("1" if suffix == "pbm" else "L").save(tmp_path / name / f"{number}.{suffix}")
    assert len(load("image_folder", tmp_path).images) == 2


def test_proportions_are_kept(tmp_path):
    bar = np.full((30, 10), 255, np.uint8)
    bar[:, 4:6] = 0  # 2x30, touching both ends
    write_image(tmp_path / "a" / "0.png", bar)
    write_image(tmp_path / "b" / "0.png", np.full((30, 30), 255, np.uint8))
    image = load("image_folder", tmp_path, image_size=30).images[0, ..., 0]
    assert (image[:, 14:16] == 0).all() and (np.delete(image, [14, 15], axis=1) == 255).all()


def test_skipped_files_are_counted(tmp_path, caplog):
    for name in ("a", "b"):
        write_image(tmp_path / name / "0.png", IMAGES[0])
    write_image(tmp_path / "a" / "deeper" / "1.png", IMAGES[1])
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "b" / "photo.heic").write_text("x")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    (tmp_path / "labels.csv").write_text("x")
    assert len(load("image_folder", tmp_path).images) == 3
    left_out, deeper = caplog.messages
    assert "skipped 5 files (" in left_out and ".txt: 1" in left_out
    assert "pillow-heif" in left_out and "broken links: 1" in left_out
    assert "not regular files: 1" in left_out
    assert "outside the folders of the classes: 1" in left_out
    assert "1 file in subfolders of a class folder, read as images of that class" in deeper


@pytest.mark.parametrize("name", ["valid", "val", "Validation"])
@pytest.mark.parametrize("has_test", [True, False])
def test_a_validation_part(tmp_path, name, has_test):
    for number, part in enumerate(["train", name] + ["test"] * has_test):
        for label in ("one", "two"):
            write_image(tmp_path / part / label / "0.png", IMAGES[number])
    data = load("image_folder", tmp_path)
    assert data.validation == range(2, 4) and data.official_train == (2 if has_test else None)
    split = "holdout" if has_test else "random"
    rows = split_indices(DataConfig("image_folder", split, folder="x"), data)
    assert sorted(rows["train"]) == [0, 1] and rows["validation"].tolist() == [2, 3]
    assert rows.get("test", np.array([])).tolist() == ([4, 5] if has_test else [])
    if has_test:
        rows = split_indices(DataConfig("image_folder", "official", folder="x"), data)
        assert rows["train"].tolist() == [0, 1] and rows["test"].tolist() == [4, 5]


def test_images_that_move_to_the_validation_part_make_other_data(tmp_path):
    for number in range(3):
        for label in ("one", "two"):
            write_image(tmp_path / "a" / ("valid" if number == 2 else "train") / label
                        / f"{number}.png", IMAGES[number])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for image in sorted((tmp_path / "b").rglob("1.png")):
        image.rename(tmp_path / "b" / "valid" / image.parent.name / image.name)
    before, after = (load("image_folder", tmp_path / name) for name in "ab")
    assert "data.validation was 2 and is 4" in data_differences(
        before.identity(), after.identity())


def test_one_class_is_refused(tmp_path):
    write_image(tmp_path / "a" / "0.png", IMAGES[0])
    assert "all training images are of one class, a" in error_line("image_folder", tmp_path)


def test_a_decompression_bomb_is_refused_without_a_warning(tmp_path, recwarn):
    write_image(tmp_path / "a" / "0.png", IMAGES[0])
    (tmp_path / "b").mkdir()
    Image.new("1", (10_000, 10_000)).save(tmp_path / "b" / "0.png")
    assert "larger than the supported" in error_line("image_folder", tmp_path) and not list(recwarn)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_are_followed(tmp_path, kind):
    write_image(tmp_path / "outside" / "0.png", IMAGES[0])
    folder = tmp_path / "folder"
    write_image(folder / "a" / "0.png", IMAGES[1])
    if kind == "file":
        write_image(folder / "b" / "1.png", IMAGES[2])
        (folder / "b" / "0.png").symlink_to(tmp_path / "outside" / "0.png")
    else:
        (folder / "b").symlink_to(tmp_path / "outside")
    (folder / "a" / "loop").symlink_to(folder / "a")
    np.testing.assert_array_equal(
        load("image_folder", folder).images[:2, ..., 0], IMAGES[[1, 0]])


def test_empty_and_missing_folders(tmp_path):
    assert "contains no folders; put" in error_line("image_folder", tmp_path)
    (tmp_path / "a").mkdir()
    assert "contains no readable images" in error_line("image_folder", tmp_path)
    assert "no such folder" in error_line("idx_files", tmp_path / "nowhere")


def test_there_are_no_synthetic_data_for_custom_data(tmp_path):
    with pytest.raises(FlaxdigitsError, match="no synthetic data"):
        load_dataset(DataConfig(dataset="idx_files", folder=str(tmp_path)),
                     DataLocations(source="drawn"))
