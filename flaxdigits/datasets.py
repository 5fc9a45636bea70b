"""The registry of data sets: their names, splits and config fields; `register` adds a custom one.

A custom data set is a function in an experiment file that returns arrays::

    @flaxdigits.datasets.register("bars")
    def load_bars(config):
        images, labels = ...  # [n, height, width] or [n, height, width, channels] uint8, [n] int
        return flaxdigits.DataArrays(images, labels)

`data.dataset=bars` then selects it. This module imports neither NumPy nor JAX, so that a config can
be checked without them; `flaxdigits.data` reads the files of the built-in data sets.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable
from typing import Any

from flaxdigits.errors import FlaxdigitsError, quoted

TFDS = "tfds:"  # the prefix of the names of data sets that tensorflow-datasets has prepared
_TFDS_NAME = re.compile(
    r"tfds:[A-Za-z]\w*(/[\w-][\w.+-]*)?(:\d+\.\d+\.\d+)?", re.ASCII)  # name/config:version
SPLITS = ("train", "validation", "test")
# The values of `data.split`.
SPLIT_SCHEMES = ("official", "holdout", "random", "fractions", "kfold", "writers", "indices")

Load = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class DatasetEntry:
    """The config fields that a data set accepts.

    Attributes:
      splits: the accepted values of `data.split`. A split that needs an official test part or
        writers is rejected later, if the loaded data have none.
      required: the names of the data-set-specific fields of `data` that must be set.
      optional: the names of the data-set-specific fields of `data` that may be set.
      load: the function that returns the arrays of a registered data set; None for the others.
    """

    splits: tuple[str, ...] = SPLIT_SCHEMES
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    load: Load | None = None


DATASETS: dict[str, DatasetEntry] = {
    "mnist": DatasetEntry(("official", "holdout", "kaggle", "fractions", "kfold", "indices")),
    "chinese_mnist": DatasetEntry(("random", "fractions", "writers", "kfold", "indices")),
    "idx_files": DatasetEntry(required=("folder",)),
    "image_folder": DatasetEntry(required=("folder",), optional=("image_size",)),
    "npz": DatasetEntry(required=("folder",)),
    "arrays": DatasetEntry(),
}
_BUILT_IN = frozenset(DATASETS)
HAVE_SYNTHETIC = ("mnist", "chinese_mnist")  # flaxdigits can generate synthetic data in their place


def register(name: str) -> Callable[[Load], Load]:
    """Returns a decorator that makes a function the data set `data.dataset=<name>`.

    The function takes the `DataConfig`, of which it may use `folder` and `image_size`, and returns
    a `flaxdigits.DataArrays`. It must return the same arrays every time: a run stores their
    fingerprint and does not resume with other data.

    Args:
      name: the name of the data set in configs. If an experiment file is executed again, the new
        function replaces the old one; the name of a built-in data set cannot be reused.

    Raises:
      FlaxdigitsError: from the decorator, if the name is not valid or not available, or the
        decorated object is not a function.
    """
    def add(load: Load) -> Load:
        if not callable(load):
            raise FlaxdigitsError(
                f"datasets.register({name!r}) must decorate a function that takes the DataConfig, "
                f"got {quoted(load)}")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name) or (
                name.lower() == "none"):
            raise FlaxdigitsError(
                f"datasets.register({name!r}): the name must consist of letters, digits and "
                "underscores, not begin with a digit, and not be none")
        if name in _BUILT_IN:
            raise FlaxdigitsError(
                f"datasets.register({name!r}): flaxdigits already has a data set of this name: "
                "choose another name")
        DATASETS[name] = DatasetEntry(optional=("folder", "image_size"), load=load)
        return load

    return add


def find_dataset(name: str) -> DatasetEntry:
    """Returns the data set that `data.dataset` names.

    Raises:
      FlaxdigitsError: if there is no data set of this name; the message lists the known names.
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
        + "; a custom data set is registered by its experiment file: pass that file as "
        "experiment")


def datasets_with(field: str) -> list[str]:
    """Returns the names of the data sets that accept a field of `data`, sorted."""
    return sorted(name for name, entry in DATASETS.items()
                  if field in entry.required + entry.optional)
