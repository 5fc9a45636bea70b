"""What a network says of the examples of a split, in memory and as a file of plain arrays."""

import dataclasses
import io
from collections.abc import Mapping

import numpy as np

from flaxdigits.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The logits of a split.

    Attributes:
      index: [examples] int32, where they are in the data set.
      labels: [examples] int32.
      logits: [examples, classes] float32.
    """

    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


def predictions_file(splits: Mapping[str, Predictions], step: int, dataset: Dataset) -> bytes:
    """`predictions.npz`: plain arrays, for `numpy.load(path, allow_pickle=False)`.

    Holds `step` (of the checkpoint), `class_names`, and `<split>_index`, `<split>_labels`,
    `<split>_logits` and, where the data set tells, `<split>_writers` for each of `splits`.
    """
    arrays = {"step": np.int64(step), "class_names": np.array(dataset.class_names)}
    for split, predictions in splits.items():
        for field in dataclasses.fields(predictions):
            arrays[f"{split}_{field.name}"] = getattr(predictions, field.name)
        if dataset.writers is not None:
            arrays[f"{split}_writers"] = dataset.writers[predictions.index]
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()
