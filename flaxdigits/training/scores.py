"""Computes the metrics of a split from its logits."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from flaxdigits.losses import Loss
from flaxdigits.metrics import Metric, compute_metric


@dataclasses.dataclass(frozen=True)
class Scores:
    """The metrics of a split, in which each example counts once."""

    accuracy: float  # fraction
    loss: float  # mean over the examples
    errors: int
    examples: int
    others: Mapping[str, float]  # the metrics of `evaluate.metrics` by their keys


def score(
    logits: np.ndarray, labels: np.ndarray, loss: Loss, metrics: Sequence[Metric] = ()
) -> Scores:
    """Returns the metrics of a split.

    Args:
      logits: [examples, classes] float32.
      labels: [examples] int32.
      loss: the training loss; its mean over the examples is computed in float64 on the host.
      metrics: the metrics to compute in addition to accuracy, loss and errors.

    Raises:
      FlaxdigitsError: if a metric does not return a single number.
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    # JAX functions take NumPy arrays too.
    losses = np.asarray(
        loss.losses(logits, targets), np.float64)  # pyright: ignore[reportArgumentType]
    errors = int((logits.argmax(-1) != labels).sum())
    return Scores(
        accuracy=1 - errors / len(labels), loss=float(losses.mean()),
        errors=errors, examples=len(labels),
        others={metric.key: compute_metric(metric, logits, labels) for metric in metrics})


def scores_by_name(
    split: str, scores: Scores | None, metrics: Sequence[Metric] = ()
) -> dict[str, float | int | None]:
    """Returns the scores of a split by names such as `test_accuracy`.

    Args:
      split: the name of the split.
      scores: the scores; if None, every returned value is None.
      metrics: the metrics whose keys the names include.
    """
    keys = ("accuracy", "loss", "errors", "examples", *(metric.key for metric in metrics))
    values = {} if scores is None else {**vars(scores), **scores.others}
    return {f"{split}_{key}": values.get(key) for key in keys}
