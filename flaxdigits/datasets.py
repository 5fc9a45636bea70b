"""The data sets by name, with the splits and fields of each; `register` adds a custom one.

A custom data set is a function in an experiment file, which returns arrays::

    @flaxdigits.datasets.register("bars")
    def load_bars(config):
        images, labels = ...  # [n, height, width] or [n, height, width, channels] uint8, [n] int
        return flaxdigits.DataArrays(images, labels)

`data.dataset=bars` then chooses it. This module imports neither NumPy nor JAX, so that a config can
be checked without them; the files of the shipped data sets are read by `flaxdigits.data`.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable
from typing import Any

from flaxdigits.errors import FlaxdigitsError, quoted

TFDS = "tfds:"  # begins the name of a data set that tensorflow-datasets has prepared
_TFDS_NAME = re.compile(
    r"tfds:[A-Za-z]\w*(/[\w-][\w.+-]*)?(:\d+\.\d+\.\d+)?", re.ASCII)  # name/config:version
SPLITS = ("official", "holdout", "random", "kfold", "writers", "indices")
PARTS = ("train", "validation", "test")  # into which a split divides the examples

Load = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class DatasetEntry:
    """What a config may say about a data set.

    Attributes:
      splits: the values of `data.split`; those that need parts or writers are refused later for
        data without them.
      required: the fields of `data` that must be set.
      optional: the fields of `data` that may be set, of those that not every data set has.
      load: of a registered data set, the function that returns its arrays; else None.
    """

    splits: tuple[str, ...] = SPLITS
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    load: Load | None = None


DATASETS: dict[str, DatasetEntry] = {
    "mnist": DatasetEntry(("official", "holdout", "kaggle", "kfold", "indices")),
    "chinese_mnist": DatasetEntry(("random", "writers", "kfold", "indices")),
    "idx_files": DatasetEntry(required=("folder",)),
    "image_folder": DatasetEntry(required=("folder",), optional=("image_size",)),
    "npz": DatasetEntry(required=("folder",)),
    "arrays": DatasetEntry(),
}
_SHIPPED = frozenset(DATASETS)


def register(name: str) -> Callable[[Load], Load]:
    """Returns a decorator that makes a function the data set `data.dataset=<name>`.

    The function takes the `DataConfig`, of which it may use `folder` and `image_size`, and returns
    a `flaxdigits.DataArrays`. It must return the same arrays every time: a run records a
    fingerprint of them and does not resume on others.

    Args:
      name: by which the config names the data set. A file that is executed again registers its
        function anew; the name of a shipped data set cannot be taken.

    Raises:
      FlaxdigitsError: from the decorator, if the name is taken or no word, or what is decorated is
        not a function.
    """
    def add(load: Load) -> Load:
        if not callable(load):
            raise FlaxdigitsError(
                f"datasets.register({name!r}) decorates a function of the data's config, got "
                f"{quoted(load)}")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name) or (
                name.lower() == "none"):
            raise FlaxdigitsError(
                f"datasets.register({name!r}): the name must be a word that does not begin with a "
                "digit, and not none")
        if name in _SHIPPED:
            raise FlaxdigitsError(
                f"datasets.register({name!r}): the package has a data set of this name: choose "
                "another")
        DATASETS[name] = DatasetEntry(optional=("folder", "image_size"), load=load)
        return load

    return add


def find_dataset(name: str) -> DatasetEntry:
    """Returns the data set that `data.dataset` names.

    Raises:
      FlaxdigitsError: if there is none of this name; the message lists those that there are.
    """
    if name in DATASETS:
        return DATASETS[name]
    if _TFDS_NAME.fullmatch(name):
        return DatasetEntry()
    near = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.6)
    raise FlaxdigitsError(
        f"data.dataset must be one of {', '.join(sorted(DATASETS))}, or tfds: and the name of a "
        f"tensorflow-datasets builder, such as tfds:emnist/letters, got {quoted(name)}"
        + (f"; did you mean {near[0]}?" if near else "")
        + "; a custom data set is registered by its experiment file: name that file with "
        "--experiment")


def datasets_with(field: str) -> list[str]:
    """Returns the names of the data sets that take a field of `data`."""
    return sorted(name for name, entry in DATASETS.items()
                  if field in entry.required + entry.optional)
