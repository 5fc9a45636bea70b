"""What several seeds say: means with their intervals, and differences with theirs."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy

CONFIDENCE = 0.95
ROUNDING = 1e-9  # of fractions: differences that scatter by less are taken for equal


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval by Student's t; None where one value cannot tell.

    Attributes:
      mean: of the values.
      sd: their standard deviation, with n - 1.
      n: how many there are.
      low: of the interval.
      high: of the interval.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a mean lies from that of the base.

    Attributes:
      mean: of the differences.
      low: of their 95 % interval; None where one value cannot tell, or all are the same.
      high: likewise.
      n: how many pairs, or of unpaired values the smaller number.
      p: of a paired t-test; None where there is none.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of at least one value."""
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return Estimate(mean, None, n, None, None)
    sd = float(np.std(values, ddof=1))
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(mean, sd, n, mean - half, mean + half)


def prediction_interval(result: Estimate) -> tuple[float, float] | None:
    """Where a further single value would lie in 95 of 100 cases, by Student's t; None of one."""
    if result.sd is None:
        return None
    quantile = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, result.n - 1))
    half = quantile * result.sd * math.sqrt(1 + 1 / result.n)
    return result.mean - half, result.mean + half


def paired_difference(values: Sequence[float], base: Sequence[float]) -> Difference:
    """Values less those of the base, seed by seed, on the same images.

    Differences that are all the same tell of no scatter: then there is no interval and no p.
    """
    result = estimate(np.subtract(values, base))
    if result.sd is None or result.sd <= ROUNDING:
        return Difference(result.mean, None, None, result.n, None)
    p = float(scipy.stats.ttest_rel(values, base).pvalue)
    return Difference(result.mean, result.low, result.high, result.n, p)


def unpaired_difference(values: Sequence[float], base: Sequence[float]) -> Difference:
    """Values less those of the base where the images differ: Welch's interval and no test."""
    ours, theirs = estimate(values), estimate(base)
    mean, n = ours.mean - theirs.mean, min(ours.n, theirs.n)
    if n == 1 or max(ours.sd, theirs.sd) <= ROUNDING:
        return Difference(mean, None, None, n, None)
    squares = [result.sd**2 / result.n for result in (ours, theirs)]
    freedom = sum(squares)**2 / sum(
        square**2 / (result.n - 1) for square, result in zip(squares, (ours, theirs), strict=True))
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(sum(squares))
    return Difference(mean, mean - half, mean + half, n, None)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for their number: Holm (1979), Scandinavian Journal of Statistics 6, 65-70."""
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = worst
    return corrected
