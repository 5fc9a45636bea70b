"""Means, differences and tests, against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from flaxdigits.studies.statistics import (
    estimate,
    holm,
    paired_difference,
    prediction_interval,
    unpaired_difference,
)


def test_estimates_have_student_s_interval():
    values = [0.91, 0.93, 0.96]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.mean, found.sd, found.n, found.low, found.high) == pytest.approx(
        (np.mean(values), np.std(values, ddof=1), 3, low, high))
    assert estimate([0.5]).low is None and estimate([0.5]).sd is None


def test_differences_over_the_same_seeds_are_paired():
    base = [0.90, 0.95, 0.92, 0.97]
    better = np.add(base, [0.010, 0.012, 0.008, 0.011])
    paired, unpaired = paired_difference(better, base), unpaired_difference(better, base)
    expected = stats.ttest_rel(better, base)
    interval = expected.confidence_interval()
    assert (paired.p, paired.low, paired.high, paired.n) == pytest.approx(
        (expected.pvalue, interval.low, interval.high, 4))
    assert (paired.mean, unpaired.mean) == pytest.approx((0.01025, 0.01025))
    assert paired.low > 0 > unpaired.low and unpaired.p is None
    same = paired_difference(np.add(base, 0.02), base)
    assert (same.mean, same.p, same.low, same.high) == (pytest.approx(0.02), None, None, None)
    assert paired_difference([0.5], [0.25]).low is None


def test_holm_corrects_as_published():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_prediction_intervals_are_student_s():
    values = [0.91, 0.93, 0.96]
    low, high = prediction_interval(estimate(values))
    expected = stats.t(2, np.mean(values), np.std(values, ddof=1) * np.sqrt(4 / 3))
    assert (low, high) == pytest.approx(expected.interval(0.95))
    assert prediction_interval(estimate([0.9])) is None
