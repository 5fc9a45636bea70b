"""Data of one's own: idx files as MNIST's, or a folder of images by class."""

import dataclasses
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from flaxdigits.config import DataConfig
from flaxdigits.data.examples import Examples
from flaxdigits.data.idx import read_idx
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".tif", ".tiff", ".webp")


@dataclasses.dataclass(frozen=True)
class OwnData:
    """The examples, the names of their classes, and how many of the first rows are for training.

    `official_train` is None where the folder has no test part.
    """

    examples: Examples
    class_names: tuple[str, ...]
    official_train: int | None


def read_own(config: DataConfig) -> OwnData:
    """Reads `config.folder`, which is laid out as `config.dataset` says.

    "idx_files": train-images-idx3-ubyte and train-labels-idx1-ubyte and, if there is a test part,
    t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or with .gz, as Fashion-MNIST
    and KMNIST come.

    "image_folder": <folder>/<class>/<image>, or <folder>/train/<class>/<image> and
    <folder>/test/<class>/<image>. Images become grey (transparency is dropped) and, with
    `config.image_size`, squares of that size; without, they must all have one size. Classes and
    images are sorted by name; rows take one image of each class in turn, so that the first few
    hold every class.

    Raises:
      FlaxdigitsError: the folder or a file is missing, damaged or of another kind.
    """
    folder = expand_user(config.folder or "").resolve()
    if not config.folder or not folder.is_dir():
        raise FlaxdigitsError(
            f"data.folder={config.folder}: no such folder; data.dataset={config.dataset} reads "
            "one of your own")
    return _idx_files(folder) if config.dataset == "idx_files" else _image_folder(
        folder, config.image_size)


def _idx_files(folder: Path) -> OwnData:
    parts = [_idx_part(folder, "train")]
    has_test = any(folder.glob("t10k-*"))
    if has_test:
        parts.append(_idx_part(folder, "t10k"))
    sizes = {images.shape[1:] for images, _ in parts}
    if len(sizes) > 1:
        raise FlaxdigitsError(
            f"{folder}: training images are {_size(parts[0][0])} and test images "
            f"{_size(parts[1][0])}; both must have one size")
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return OwnData(
        Examples(images, labels.astype(np.int32)),
        tuple(str(label) for label in range(int(labels.max()) + 1)),
        len(parts[0][0]) if has_test else None,
    )


def _idx_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images_path = _plain_or_gz(folder, f"{part}-images-idx3-ubyte")
    labels_path = _plain_or_gz(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if len(images) != len(labels) or not images.size:
        raise FlaxdigitsError(
            f"{labels_path}: {len(labels)} labels for {len(images)} images in "
            f"{images_path.name}; there must be as many of both, and some")
    return images, labels


def _plain_or_gz(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            return _inside(folder, path)
    raise FlaxdigitsError(
        f"{folder}: lacks {name} or {name}.gz, which data.dataset=idx_files reads")


def _image_folder(folder: Path, image_size: int | None) -> OwnData:
    has_parts = (folder / "train").is_dir() and (folder / "test").is_dir()
    roots = [folder / "train", folder / "test"] if has_parts else [folder]
    class_names = _classes(roots[0], folder)
    if has_parts and (unknown := set(_classes(roots[1], folder)) - set(class_names)):
        raise FlaxdigitsError(
            f"{roots[1] / min(unknown)}: a class without a folder in {roots[0]}; add training "
            "images of it or take it away")
    rows = [list(_in_turn(root, class_names, folder)) for root in roots]
    images: list[np.ndarray] = []
    for path, _ in (row for part in rows for row in part):
        images.append(_read_image(path, image_size))
        if images[-1].shape != images[0].shape:
            raise FlaxdigitsError(
                f"{path}: is {_size(images[-1:])} and the first image is {_size(images[:1])}; make "
                "them one size, or set data.image_size")
    labels = np.array([label for part in rows for _, label in part], np.int32)
    return OwnData(
        Examples(np.stack(images), labels), class_names, len(rows[0]) if has_parts else None)


def _classes(root: Path, folder: Path) -> tuple[str, ...]:
    names = sorted(path.name for path in root.iterdir()
                   if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise FlaxdigitsError(f"{root}: holds no folders of images, one for each class")
    for name in names:
        if not _image_paths(root / name, folder):
            raise FlaxdigitsError(
                f"{root / name}: holds no images ({', '.join(SUFFIXES)}); add some or take the "
                "folder away")
    return tuple(names)


def _image_paths(class_folder: Path, folder: Path) -> list[Path]:
    if not class_folder.is_dir():
        return []
    return [_inside(folder, path) for path in sorted(class_folder.iterdir())
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]


def _in_turn(
    root: Path, class_names: tuple[str, ...], folder: Path
) -> Iterator[tuple[Path, int]]:
    for same_place in zip_longest(*(_image_paths(root / name, folder) for name in class_names)):
        yield from ((path, label) for label, path in enumerate(same_place) if path is not None)


def _read_image(path: Path, image_size: int | None) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # Pillow would clip these to 8 bits, not scale them
                raise ValueError(f"mode {image.mode}; only 8 bits a channel are read")
            grey = image.convert("L")
            if image_size is not None:
                grey = grey.resize((image_size, image_size), Image.Resampling.BILINEAR)
            return np.asarray(grey)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FlaxdigitsError(
            f"{path}: cannot be read as an image ({error}); repair it or take it away") from error


def _inside(folder: Path, path: Path) -> Path:
    if not path.resolve().is_relative_to(folder):
        raise FlaxdigitsError(
            f"{path}: a link that leads out of {folder}; put the file itself there")
    return path


def _size(images: np.ndarray | list[np.ndarray]) -> str:
    height, width = images[0].shape
    return f"{height}x{width}"
