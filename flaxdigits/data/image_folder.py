"""A folder of image files by class, as arrays."""

import collections
import dataclasses
import logging
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from flaxdigits.data.photos import HEIF_SUFFIXES, NEED_HEIF, image_suffixes, read_picture
from flaxdigits.data.squares import border_median, fit_within, grey, pad_to_square
from flaxdigits.errors import FlaxdigitsError

# The names of the folders that hold a part, in lower case.
PARTS = {
    "train": ("train", "training"),
    "validation": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The images of a folder: those of train, validation and test one after another.

    Attributes:
      images: [n, height, width] uint8.
      labels: [n] int32.
      class_names: by label.
      counts: how many images each of "train", "validation" and "test" has; all are in "train"
        where the folder has no parts.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    counts: dict[str, int]


def read_image_folder(folder: Path, image_size: int | None) -> ImageFolder:
    """Reads <folder>/<class>/<image>, or <folder>/<part>/<class>/<image>.

    The parts are train (or training), valid (val, validation) and test (testing). Images may be
    in subfolders of the folder of their class, and links are followed. They become grey as
    `flaxdigits.data.photos` reads them. With `image_size` each is scaled to fit a square of that
    size and padded with the folder's ground, the median of the images' borders; without, all must
    have one size. Classes and images are sorted by name; rows take one image of each class in
    turn, so that the first few hold every class.

    Files that cannot be images, and files outside the classes' folders, are left out; a warning
    counts them.

    Raises:
      FlaxdigitsError: the folder holds no classes, a class has no images, an image is damaged, or
        sizes differ.
    """
    left_out = _LeftOut(folder)
    try:
        roots = _parts(folder, left_out)
        files = {part: _files_by_class(root, left_out) for part, root in roots.items()}
    except OSError as error:
        raise FlaxdigitsError(
            f"{error.filename or folder}: cannot be read ({error.strerror or error}); make it "
            "readable or move it out of the data folder") from error
    class_names = tuple(files["train"])
    for part, by_class in files.items():
        if unknown := set(by_class) - set(class_names):
            raise FlaxdigitsError(
                f"{roots[part] / min(unknown)}: a class without a folder in {roots['train']}; add "
                "training images of it or remove it")
    rows = {part: list(_in_turn(by_class, class_names)) for part, by_class in files.items()}
    images = _read_all([path for part in rows.values() for path, _ in part], image_size, left_out)
    left_out.warn()
    return ImageFolder(
        images, np.array([label for part in rows.values() for _, label in part], np.int32),
        class_names, {part: len(rows.get(part, ())) for part in PARTS})


class _LeftOut:
    """Counts files that are not read, and files that are read in an unexpected way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, list[Path]] = collections.defaultdict(list)
        self._remarks: dict[str, list[Path]] = collections.defaultdict(list)

    def add(self, path: Path, kind: str) -> None:
        """Counts a file that is left out."""
        self._files[kind].append(path)

    def remark(self, path: Path, what: str) -> None:
        """Counts a file that is read."""
        self._remarks[what].append(path)

    def warn(self) -> None:
        """Logs a line about the files left out, and one for each remark."""
        count = sum(map(len, self._files.values()))
        if count:
            kinds = ", ".join(f"{len(paths)} {kind}" for kind, paths in sorted(
                self._files.items(), key=lambda item: -len(item[1])))
            first = min(path for paths in self._files.values() for path in paths)
            _log.warning("%s: %d file%s left out, such as %s: %s", self._folder, count,
                         "s are" if count > 1 else " is", self._name(first), kinds)
        for what, paths in self._remarks.items():
            _log.warning("%s: %d file%s %s, such as %s", self._folder, len(paths),
                         "s" if len(paths) > 1 else "", what, self._name(min(paths)))

    def _name(self, path: Path) -> Path:
        return path.relative_to(self._folder)


def _parts(folder: Path, left_out: _LeftOut) -> dict[str, Path]:
    """Returns the folder of each part that there is; "train" is the whole if there are none."""
    found = {part: [path for path in _entries(folder)
                    if path.name.lower() in names and path.is_dir()]
             for part, names in PARTS.items()}
    if not found["train"] or not (found["validation"] or found["test"]):
        return {"train": folder}
    for part, paths in found.items():
        if len(paths) > 1:
            raise FlaxdigitsError(
                f"{folder}: has both {paths[0].name} and {paths[1].name} for {part}; leave one")
    roots = {part: paths[0] for part, paths in found.items() if paths}
    for path in _entries(folder):
        if not path.is_dir():
            left_out.add(path, "outside the folders of the classes")
        elif path not in roots.values():
            for file, kind in _walk(path):
                if kind is None:
                    left_out.add(file, f"in {path.name}, which is no part")
    return roots


def _files_by_class(root: Path, left_out: _LeftOut) -> dict[str, list[Path]]:
    """Returns the image files of each class, both sorted by name."""
    files: dict[str, list[Path]] = {}
    for entry in _entries(root):
        if not entry.is_dir():
            left_out.add(entry, "outside the folders of the classes")
            continue
        files[entry.name] = []
        for path, kind in _walk(entry):
            if kind is not None:
                left_out.add(path, kind)
                continue
            files[entry.name].append(path)
            if path.parent != entry:
                left_out.remark(path, "in folders within that of a class counted to the class")
    if not files:
        raise FlaxdigitsError(f"{root}: holds no folders of images, one for each class")
    for name, paths in files.items():
        if not paths:
            raise FlaxdigitsError(
                f"{root / name}: holds no images that can be read (such as .png, .jpg, .tif); add "
                "some or remove the folder")
    return files


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir()
                  if not path.name.startswith(".") and path.name != "__MACOSX")


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, str | None]]:
    """Yields every file in a folder, sorted, with the reason it is not read; None for images."""
    real = folder.resolve()
    if real in above:  # a link to a folder that holds it
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


def _in_turn(
    files: dict[str, list[Path]], class_names: tuple[str, ...]
) -> Iterator[tuple[Path, int]]:
    for same_place in zip_longest(*(files.get(name, ()) for name in class_names)):
        yield from ((path, label) for label, path in enumerate(same_place) if path is not None)


def _read_all(paths: list[Path], image_size: int | None, left_out: _LeftOut) -> np.ndarray:
    """Returns the images: [n, height, width] uint8."""
    images: list[np.ndarray] = []
    for path in paths:
        picture = read_picture(path)
        if picture.has_more:
            left_out.remark(path, "with several pictures, of which the first is read")
        image = grey(picture.image)
        images.append(np.asarray(image if image_size is None else fit_within(image, image_size)))
        if image_size is None and images[-1].shape != images[0].shape:
            raise FlaxdigitsError(
                f"{path}: is {_size(images[-1])} and the first image is {_size(images[0])}; make "
                "them one size, or set data.image_size")
    if image_size is not None:
        ground = round(float(np.median([border_median(image) for image in images])))
        images = [pad_to_square(image, image_size, ground) for image in images]
    return np.stack(images)


def _size(image: np.ndarray) -> str:
    height, width = image.shape
    return f"{height}x{width}"
