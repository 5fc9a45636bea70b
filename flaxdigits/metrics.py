"""Metrics of a split: functions of its logits and labels, which are computed on the host.

Accuracy, loss and the numbers of errors and examples are always computed. `evaluate.metrics` adds
further ones: `--set evaluate.metrics=macro_f1,top_k`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import ClassVar

from etils import epy

from flaxdigits.components import Component, count, register
from flaxdigits.errors import MAX_QUOTE_LENGTH, FlaxdigitsError

with epy.lazy_imports():
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Format:
    """How a metric is printed and compared.

    Attributes:
      is_fraction: whether the metric is printed in percent, and a difference in percentage points.
      higher_is_better: whether higher values are better.
    """

    is_fraction: bool
    higher_is_better: bool


@dataclasses.dataclass(frozen=True)
class Metric(Component, kind="metric"):
    """Base class of the metrics.

    Attributes:
      higher_is_better: whether higher values are better.
      is_fraction: whether the metric is printed in percent.
    """

    higher_is_better: ClassVar[bool] = True
    is_fraction: ClassVar[bool] = True

    @property
    def key(self) -> str:
        """The name of the metric in results: `test_<key>`, `validation_<key>`."""
        return self.name

    def compute(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Returns the metric of a split.

        Args:
          logits: [examples, classes] float32.
          labels: [examples] int32.
        """
        raise NotImplementedError


@register("top_k")
@dataclasses.dataclass(frozen=True)
class TopK(Metric):
    """The fraction of examples whose label is among the `k` largest logits.

    Attributes:
      k: the number of largest logits.
    """

    k: int = count(3)

    @property
    def key(self) -> str:
        """The name of the metric in results, such as `top_3`."""
        return f"top_{self.k}"

    def compute(self, logits: np.ndarray, labels: np.ndarray) -> float:
        correct = np.take_along_axis(logits, labels[:, None], axis=1)
        return float(((logits > correct).sum(1) < self.k).mean())


@register("balanced_accuracy")
@dataclasses.dataclass(frozen=True)
class BalancedAccuracy(Metric):
    """The mean of the accuracies of the classes that occur in the split."""

    def compute(self, logits: np.ndarray, labels: np.ndarray) -> float:
        table = confusion(logits, labels)
        examples = table.sum(1)
        occurs = examples > 0
        return float((table.diagonal()[occurs] / examples[occurs]).mean())


@register("macro_f1")
@dataclasses.dataclass(frozen=True)
class MacroF1(Metric):
    """The mean F1 score of the classes that occur in the split or are predicted."""

    def compute(self, logits: np.ndarray, labels: np.ndarray) -> float:
        table = confusion(logits, labels)
        total = table.sum(0) + table.sum(1)
        occurs = total > 0
        return float((2 * table.diagonal()[occurs] / total[occurs]).mean())


@register("negative_log_likelihood")
@dataclasses.dataclass(frozen=True)
class NegativeLogLikelihood(Metric):
    """The mean of -log p(label) in nats; it does not depend on `train.loss`."""

    higher_is_better: ClassVar[bool] = False
    is_fraction: ClassVar[bool] = False

    def compute(self, logits: np.ndarray, labels: np.ndarray) -> float:
        log_p = _log_softmax(logits)
        return float(-np.take_along_axis(log_p, labels[:, None], axis=1).mean())


@register("calibration_error")
@dataclasses.dataclass(frozen=True)
class CalibrationError(Metric):
    """The expected calibration error (Guo et al. 2017).

    The confidence of an example is the probability of its predicted class. The examples are divided
    into `bins` equal intervals of confidence; the metric is the absolute difference between the
    accuracy and the mean confidence of an interval, averaged over the examples.

    Attributes:
      bins: the number of intervals of confidence.
    """

    higher_is_better: ClassVar[bool] = False

    bins: int = count(15)

    def compute(self, logits: np.ndarray, labels: np.ndarray) -> float:
        confidence = np.exp(_log_softmax(logits).max(1))
        is_correct = logits.argmax(1) == labels
        bins = np.minimum((confidence * self.bins).astype(int), self.bins - 1)
        gaps = np.bincount(bins, is_correct - confidence, minlength=self.bins)
        return float(np.abs(gaps).sum() / len(labels))


def formats(metrics: Sequence[Metric]) -> dict[str, Format]:
    """Returns the formats of the metrics of a split by key.

    Args:
      metrics: the metrics in addition to accuracy, loss and errors, which are always included.
    """
    return {
        "accuracy": Format(True, True), "loss": Format(False, False),
        "errors": Format(False, False),
        **{metric.key: Format(metric.is_fraction, metric.higher_is_better)
           for metric in metrics}}


# The fields of every split in results; a metric in `evaluate.metrics` cannot use these keys.
RESERVED = ("accuracy", "loss", "errors", "examples", "accuracy_running")


def compute_metric(metric: Metric, logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns a metric of a split as a Python float.

    Args:
      metric: a metric in `evaluate.metrics`.
      logits: [examples, classes] float32.
      labels: [examples] int32.

    Raises:
      FlaxdigitsError: if the metric does not return a single number.
    """
    value = metric.compute(logits, labels)
    is_number = (np.ndim(value) == 0 and value is not None
                 and np.issubdtype(np.asarray(value).dtype, np.number))
    if not is_number or np.iscomplexobj(value):
        got = (f"an array of shape {list(np.shape(value))}" if np.ndim(value) else repr(value))
        raise FlaxdigitsError(
            f"evaluate.metrics: {metric.name} must return a number, got {got[:MAX_QUOTE_LENGTH]}")
    return float(value)


def check_metric(metric: Metric, num_classes: int) -> None:
    """Raises FlaxdigitsError if a metric does not return a number, or returns different numbers.

    The metric is computed twice for the same random logits.
    """
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(num_classes, dtype=np.int32), 3)
    logits = random.normal(size=(len(labels), num_classes)).astype(np.float32)
    first, second = (compute_metric(metric, logits, labels) for _ in range(2))
    if first != second and first == first:  # NaN differs from itself
        raise FlaxdigitsError(
            f"evaluate.metrics: {metric.name} returns {first} and then {second} for the same "
            "logits: give its random generator a seed, as in np.random.default_rng(0)")


def check_keys(metrics: Sequence[Metric]) -> None:
    """Raises FlaxdigitsError if two metrics have the same key, or a key is invalid or reserved."""
    keys = [metric.key for metric in metrics]
    for key in keys:
        if key in RESERVED or not re.fullmatch(r"\w+", key):
            raise FlaxdigitsError(
                f"evaluate.metrics: the key of a metric must consist of letters, digits and "
                f"underscores and not be one of {', '.join(RESERVED)}, got {key!r}: register the "
                "metric under another name")
        if keys.count(key) > 1:
            raise FlaxdigitsError(
                f"evaluate.metrics: two metrics have the key {key}: remove one of them, or "
                "override `key` in its class so that it depends on the fields")


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the confusion matrix: [classes, classes] int64; rows are labels, columns predictions.
    """
    classes = logits.shape[1]
    return np.bincount(
        labels.astype(np.int64) * classes + logits.argmax(1), minlength=classes ** 2,
    ).reshape(classes, classes)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
