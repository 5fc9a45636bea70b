"""Metrics on small tables whose values can be worked out on paper, and against definitions."""

import numpy as np
import pytest

from flaxdigits.losses import CrossEntropy
from flaxdigits.metrics import (
    BalancedAccuracy,
    CalibrationError,
    MacroF1,
    Metric,
    NegativeLogLikelihood,
    TopK,
    confusion,
)
from flaxdigits.training.scores import score, scores_by_name

pytestmark = pytest.mark.quick

# Labels 0, 0, 0, 1; predictions 0, 0, 1, 1, with the third class never seen.
LOGITS = np.log(np.array(
    [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]], np.float32))
LABELS = np.array([0, 0, 0, 1], np.int32)


def test_confusion_has_labels_in_rows():
    assert confusion(LOGITS, LABELS).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(("metric", "expected"), [
    (TopK(k=1), 0.75), (TopK(k=2), 1.0),
    (BalancedAccuracy(), (2 / 3 + 1) / 2),
    (MacroF1(), (4 / 5 + 2 / 3) / 2),
    (NegativeLogLikelihood(), -np.log([0.7, 0.5, 0.3, 0.8]).mean()),
    # Ten bins: 0.7 right, 0.5 right, 0.6 wrong, 0.8 right, each in a separate bin.
    (CalibrationError(bins=10), (0.3 + 0.5 + 0.6 + 0.2) / 4),
    # One bin: 0.65 of confidence against 0.75 of accuracy.
    (CalibrationError(bins=1), 0.1),
])
def test_values(metric, expected):
    assert metric.compute(LOGITS, LABELS) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", sorted(Metric.registered))
def test_every_metric_is_a_finite_number_of_certain_and_of_many_logits(name):
    metric = Metric.find(name, "evaluate.metrics")()
    rng = np.random.default_rng(0)
    for logits in (np.float32([[1e4, -1e4]] * 4), rng.normal(size=(500, 2)).astype(np.float32)):
        value = metric.compute(logits, rng.integers(0, 2, len(logits)).astype(np.int32))
        assert isinstance(value, float) and np.isfinite(value)


def test_ties_count_for_the_label():
    assert TopK(k=1).compute(np.zeros((1, 3), np.float32), np.array([2])) == 1.0


def test_scores_hold_the_metrics_by_name():
    metrics = (MacroF1(), TopK(k=2))
    scores = score(LOGITS, LABELS, CrossEntropy(), metrics)
    assert (scores.errors, scores.examples) == (1, 4)
    assert scores_by_name("test", scores, metrics) == {
        "test_accuracy": 0.75, "test_loss": pytest.approx(-np.log([0.7, 0.5, 0.3, 0.8]).mean()),
        "test_errors": 1, "test_examples": 4, "test_macro_f1": MacroF1().compute(LOGITS, LABELS),
        "test_top_2": 1.0}
    assert scores_by_name("test", None, metrics)["test_top_2"] is None
