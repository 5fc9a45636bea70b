"""Custom splits: a file with the indices of the examples of each part."""

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxdigits.data.npz import npz_names, read_npz_arrays
from flaxdigits.datasets import SPLITS
from flaxdigits.errors import FlaxdigitsError, quoted
from flaxdigits.json_files import read_object

_ADVICE = ("write the indices as JSON, {\"train\": [0, 1, ...], \"validation\": [...], "
           "\"test\": [...]}, or as an .npz file of such arrays")


@dataclasses.dataclass(frozen=True)
class IndexFile:
    """The indices of each part, and a digest of them that does not depend on the file's format.

    Attributes:
      parts: int32 arrays under "train", and "validation" or "test" or both, in the order of the
        file.
      digest: the hexadecimal SHA-256 of the names, lengths and indices of the parts.
    """

    parts: Mapping[str, np.ndarray]
    digest: str


def read_index_file(path: Path, count: int) -> IndexFile:
    """Reads the indices of a split from a JSON file or an .npz file.

    Args:
      path: the path of the file; it is read as .npz if the name ends in .npz, else as JSON.
      count: the number of examples in the data set.

    Raises:
      FlaxdigitsError: if the file cannot be read, lacks `train` or both other parts, or has an
        index that is not an integer, is out of range, or occurs twice.
    """
    if path.suffix.lower() == ".npz":
        values: Mapping[str, Any] = read_npz_arrays(path, sorted(npz_names(path)))
    else:
        try:
            values = read_object(path, _ADVICE)
        except FileNotFoundError as error:
            raise FlaxdigitsError(
                f"data.indices={path}: there is no such file; {_ADVICE}") from error
    if unknown := sorted(set(values) - set(SPLITS)):
        raise FlaxdigitsError(f"{path}: unknown part {quoted(unknown[0])}; {_ADVICE}")
    parts = {name: _indices(path, name, values[name], count) for name in SPLITS if name in values}
    if "train" not in parts or len(parts) < 2:
        raise FlaxdigitsError(
            f"{path}: must have train, and validation or test or both, has "
            f"{', '.join(parts) or 'none of them'}; {_ADVICE}")
    for one, other in itertools.combinations(parts, 2):
        if (both := np.intersect1d(parts[one], parts[other])).size:
            raise FlaxdigitsError(
                f"{path}: the index {both[0]} is in both {one} and {other}; an example must be in "
                "only one part")
    digest = hashlib.sha256()
    for name, indices in parts.items():
        digest.update(f"{name} {len(indices)} ".encode() + indices.astype("<i4").tobytes())
    return IndexFile(parts, digest.hexdigest())


def _indices(path: Path, name: str, value: Any, count: int) -> np.ndarray:
    """Returns the indices of a part: [examples] int32, unique and in range(count)."""
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype.kind not in "iu":
            raise FlaxdigitsError(f"{path}: {name} must be an array of integers, [examples], got "
                                  f"{value.dtype} of {list(value.shape)}")
    elif not isinstance(value, list) or any(
            not isinstance(one, int) or isinstance(one, bool) for one in value):
        raise FlaxdigitsError(f"{path}: {name} must be a list of integers, got {quoted(value)}")
    if not len(value):
        raise FlaxdigitsError(f"{path}: {name} is empty; omit this part or add indices")
    outside = [one for one in (min(value), max(value)) if not 0 <= one < count]
    if outside:
        raise FlaxdigitsError(
            f"{path}: {name} has the index {outside[0]}; the data set has {count} examples, "
            f"0 to {count - 1}")
    indices = np.array(value, np.int32)
    unique, counts = np.unique(indices, return_counts=True)
    if len(unique) < len(indices):
        raise FlaxdigitsError(
            f"{path}: {name} has the index {unique[counts > 1][0]} more than once; an example must "
            "be in a part only once")
    return indices
