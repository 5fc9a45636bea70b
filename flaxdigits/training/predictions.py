"""The predictions of a network for the examples of a split, and the file that contains them."""

import dataclasses
import io
from collections.abc import Mapping

import numpy as np

from flaxdigits.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The labels and logits of the examples of a split.

    Attributes:
      index: [examples] int32, the indices of the examples in the data set.
      labels: [examples] int32.
      logits: [examples, classes] float32.
    """

    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


def predictions_file(splits: Mapping[str, Predictions], step: int, dataset: Dataset) -> bytes:
    """Returns the content of `predictions.npz`, for `numpy.load(path, allow_pickle=False)`.

    The arrays are `step` (of the checkpoint), `class_names`, and `<split>_index`, `<split>_labels`,
    `<split>_logits` and, if the data set has writers, `<split>_writers` for each of `splits`.
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
