"""Reads a folder of image files, with a subfolder for each class, into arrays."""

import collections
import dataclasses
import logging
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from flaxdigits.data.photos import HEIF_SUFFIXES, NEED_HEIF, image_suffixes, read_picture
from flaxdigits.data.squares import border_median, fit_within, pad_to_square, to_gray
from flaxdigits.errors import FlaxdigitsError

# The names of the folders of each part, in lower case.
PART_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The images of a folder: the training, validation and test images one after another.

    Attributes:
      images: [n, height, width] uint8.
      labels: [n] int32.
      class_names: the names of the classes in the order of the labels.
      counts: the number of images in "train", "validation" and "test"; all images are in "train" if
        the folder has no parts.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    counts: dict[str, int]


def read_image_folder(folder: Path, image_size: int | None) -> ImageFolder:
    """Reads <folder>/<class>/<image>, or <folder>/<part>/<class>/<image>.

    The parts are train (or training), valid (or val, validation) and test (or testing). Images may
    be in subfolders of the folder of their class, and links are followed. Images are read by
    `flaxdigits.data.photos` and converted to grayscale. With `image_size`, each image is scaled to
    fit a square of this size, and padded with the median value of the borders of all images;
    without it, all images must have the same size. Classes and images are sorted by name. The
    images alternate between the classes, so the first few images include every class.

    Files that are not images, and files outside of the folders of the classes, are skipped with a
    warning.

    Args:
      folder: the path of the folder.
      image_size: the side of the images in pixels; None to keep their size.

    Raises:
      FlaxdigitsError: if the folder has no classes, a class has no images, an image is damaged, or
        the sizes differ.
    """
    skipped = _SkippedFiles(folder)
    try:
        roots = _parts(folder, skipped)
        files = {part: _files_by_class(root, skipped) for part, root in roots.items()}
    except OSError as error:
        raise FlaxdigitsError(
            f"{error.filename or folder}: cannot be read ({error.strerror or error}); make it "
            "readable or move it out of the data folder") from error
    class_names = tuple(files["train"])
    for part, by_class in files.items():
        if unknown := set(by_class) - set(class_names):
            raise FlaxdigitsError(
                f"{roots[part] / min(unknown)}: a class without a folder in {roots['train']}; add "
                "training images of this class, or remove this folder")
    rows = {part: list(_alternating(by_class, class_names)) for part, by_class in files.items()}
    images = _read_all([path for part in rows.values() for path, _ in part], image_size, skipped)
    skipped.warn()
    return ImageFolder(
        images, np.array([label for part in rows.values() for _, label in part], np.int32),
        class_names, {part: len(rows.get(part, ())) for part in PART_FOLDERS})


class _SkippedFiles:
    """Collects the files that are skipped, and the files that are read in an unexpected way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, list[Path]] = collections.defaultdict(list)
        self._remarks: dict[str, list[Path]] = collections.defaultdict(list)

    def add(self, path: Path, kind: str) -> None:
        """Adds a file that is skipped."""
        self._files[kind].append(path)

    def remark(self, path: Path, what: str) -> None:
        """Adds a file that is read, with a remark about it."""
        self._remarks[what].append(path)

    def warn(self) -> None:
        """Logs a warning about the skipped files, and one for each remark."""
        count = sum(map(len, self._files.values()))
        if count:
            kinds = ", ".join(f"{kind}: {len(paths)}" for kind, paths in sorted(
                self._files.items(), key=lambda item: -len(item[1])))
            first = min(path for paths in self._files.values() for path in paths)
            _log.warning("%s: skipped %d file%s (%s); the first is %s", self._folder, count,
                         "s" if count > 1 else "", kinds, self._name(first))
        for what, paths in self._remarks.items():
            _log.warning("%s: %d file%s %s, for example %s", self._folder, len(paths),
                         "s" if len(paths) > 1 else "", what, self._name(min(paths)))

    def _name(self, path: Path) -> Path:
        return path.relative_to(self._folder)


def _parts(folder: Path, skipped: _SkippedFiles) -> dict[str, Path]:
    """Returns the folder of each part; without parts, the whole folder is "train"."""
    found = {part: [path for path in _entries(folder)
                    if path.name.lower() in names and path.is_dir()]
             for part, names in PART_FOLDERS.items()}
    if not found["train"] or not (found["validation"] or found["test"]):
        return {"train": folder}
    for part, paths in found.items():
        if len(paths) > 1:
            raise FlaxdigitsError(
                f"{folder}: has both {paths[0].name} and {paths[1].name} for the {part} part; "
                "remove one of them")
    roots = {part: paths[0] for part, paths in found.items() if paths}
    for path in _entries(folder):
        if not path.is_dir():
            skipped.add(path, "outside the folders of the classes")
        elif path not in roots.values():
            for file, kind in _walk(path):
                if kind is None:
                    skipped.add(file, f"in {path.name}, which is not a part")
    return roots


def _files_by_class(root: Path, skipped: _SkippedFiles) -> dict[str, list[Path]]:
    """Returns the image files of each class, both sorted by name."""
    files: dict[str, list[Path]] = {}
    for entry in _entries(root):
        if not entry.is_dir():
            skipped.add(entry, "outside the folders of the classes")
            continue
        files[entry.name] = []
        for path, kind in _walk(entry):
            if kind is not None:
                skipped.add(path, kind)
                continue
            files[entry.name].append(path)
            if path.parent != entry:
                skipped.remark(
                    path, "in subfolders of a class folder, read as images of that class")
    if not files:
        raise FlaxdigitsError(
            f"{root}: contains no folders; put the images of each class into a separate folder in "
            "it")
    for name, paths in files.items():
        if not paths:
            raise FlaxdigitsError(
                f"{root / name}: contains no readable images (such as .png, .jpg, .tif); add "
                "images, or remove the folder")
    return files


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir()
                  if not path.name.startswith(".") and path.name != "__MACOSX")


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, str | None]]:
    """Yields every file in a folder, sorted, and the reason to skip it, which is None for images.

    Args:
      folder: the folder, with its subfolders.
      above: the folders that contain it, with links resolved.
    """
    real = folder.resolve()
    if real in above:  # a link to a parent folder
        return
    for path in _entries(folder):
        suffix = path.suffix.lower()
        if path.is_dir():
            yield from _walk(path, (*above, real))
        elif not path.is_file():
            yield path, "not regular files" if path.exists() else "broken links"
        elif suffix in image_suffixes():
            yield path, None
        elif suffix in HEIF_SUFFIXES:
            yield path, f"{suffix} ({NEED_HEIF})"
        else:
            yield path, suffix or "without a suffix"


def _alternating(
    files: dict[str, list[Path]], class_names: tuple[str, ...]
) -> Iterator[tuple[Path, int]]:
    """Yields the paths and labels of all images, alternating between the classes."""
    for paths in zip_longest(*(files.get(name, ()) for name in class_names)):
        yield from ((path, label) for label, path in enumerate(paths) if path is not None)


def _read_all(paths: list[Path], image_size: int | None, skipped: _SkippedFiles) -> np.ndarray:
    """Returns the images: [n, height, width] uint8."""
    images: list[np.ndarray] = []
    for path in paths:
        picture = read_picture(path)
        if picture.has_more:
            skipped.remark(path, "with several pictures, of which only the first is read")
        image = to_gray(picture.image)
        images.append(np.asarray(image if image_size is None else fit_within(image, image_size)))
        if image_size is None and images[-1].shape != images[0].shape:
            raise FlaxdigitsError(
                f"{path}: is {_size(images[-1])}, but the first image is {_size(images[0])}; use "
                "images of one size, or set data.image_size")
    if image_size is not None:
        ground = round(float(np.median([border_median(image) for image in images])))
        images = [pad_to_square(image, image_size, ground) for image in images]
    return np.stack(images)


def _size(image: np.ndarray) -> str:
    height, width = image.shape
    return f"{height}x{width}"
