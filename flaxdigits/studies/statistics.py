"""Means and differences over several seeds, with confidence and prediction intervals."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy

CONFIDENCE = 0.95
MIN_SD = 1e-9  # values whose standard deviation is smaller are considered equal


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % confidence interval by Student's t.

    Attributes:
      mean: the mean of the values.
      sd: the standard deviation of the values, with n - 1 degrees of freedom; None if n is 1.
      n: the number of values.
      low: the lower bound of the interval; None if n is 1.
      high: the upper bound of the interval; None if n is 1.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of the mean of some values from the mean of the base's values.

    Attributes:
      mean: the mean difference.
      low: the lower bound of its 95 % confidence interval; None for a single value, and if all
        differences are the same.
      high: the upper bound; None in the same cases.
      n: the number of pairs; for unpaired values, the smaller of the two numbers of values.
      p: the p-value of a paired t-test; None if there is no interval or the values are unpaired.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """Returns the mean of at least one value, with its interval."""
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return Estimate(mean, None, n, None, None)
    sd = float(np.std(values, ddof=1))
    half_width = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(mean, sd, n, mean - half_width, mean + half_width)


def prediction_interval(result: Estimate) -> tuple[float, float] | None:
    """Returns the 95 % prediction interval of one further value, by Student's t; None if n is 1."""
    if result.sd is None:
        return None
    quantile = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, result.n - 1))
    half_width = quantile * result.sd * math.sqrt(1 + 1 / result.n)
    return result.mean - half_width, result.mean + half_width


def paired_difference(values: Sequence[float], base: Sequence[float]) -> Difference:
    """Returns the mean difference from the base over pairs of values of the same seed and images.

    If all differences are the same, their standard deviation is unknown, and there is neither an
    interval nor a p-value.
    """
    result = estimate(np.subtract(values, base))
    if result.sd is None or result.sd <= MIN_SD:
        return Difference(result.mean, None, None, result.n, None)
    p = float(scipy.stats.ttest_rel(values, base).pvalue)
    return Difference(result.mean, result.low, result.high, result.n, p)


def unpaired_difference(values: Sequence[float], base: Sequence[float]) -> Difference:
    """Returns the mean of `values` minus the mean of `base`, for unpaired values.

    The confidence interval is Welch's; `p` is None.
    """
    a, b = estimate(values), estimate(base)
    mean, n = a.mean - b.mean, min(a.n, b.n)
    if a.sd is None or b.sd is None or max(a.sd, b.sd) <= MIN_SD:
        return Difference(mean, None, None, n, None)
    squared_errors = [result.sd**2 / result.n for result in (a, b)]
    degrees_of_freedom = sum(squared_errors)**2 / sum(
        square**2 / (result.n - 1)
        for square, result in zip(squared_errors, (a, b), strict=True))
    half_width = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, degrees_of_freedom)) * math.sqrt(
        sum(squared_errors))
    return Difference(mean, mean - half_width, mean + half_width, n, None)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for multiple tests: Holm (1979), Scand. J. Statist. 6, 65-70."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = largest
    return corrected
