"""Formats means, differences and p-values over seeds for tables."""

import re

from rich.text import Text

from flaxdigits.metrics import Format
from flaxdigits.studies.statistics import Difference, Estimate

POINTS = "percentage points"


def metric_words(metric: str) -> str:
    """Returns the name of a metric of `result.json` in words, such as `validation accuracy`."""
    return metric.replace("_", " ")


def heading(metric: str, form: Format) -> str:
    """Returns the heading of a column of means of a metric."""
    return metric_words(metric) + (", %" if form.is_fraction else "")


def format_mean(value: Estimate | None, form: Format) -> str:
    """Formats a mean and its standard deviation, such as `98.29 ± 0.09`."""
    if value is None:
        return "-"
    scale, digits = (100, ".2f") if form.is_fraction else (1, ".4g")
    sd = "" if value.sd is None else f" ± {scale * value.sd:{digits}}"
    return f"{scale * value.mean:{digits}}{sd}"


def format_mean_difference(difference: Difference | None, form: Format) -> str:
    """Formats a difference and its interval, such as `-3.29 [-5.12, -1.46]`."""
    if difference is None:
        return "-"
    scale, digits = (100, "+.2f") if form.is_fraction else (1, "+.4g")
    interval = "" if difference.low is None or difference.high is None else (
        f" [{scale * difference.low:{digits}}, {scale * difference.high:{digits}}]")
    return f"{scale * difference.mean:{digits}}{interval}"


def cell(text: str) -> Text:
    """Returns a cell of a terminal's table, in which lines break before an interval, not in it."""
    return Text(re.sub(r"\[(\S+), (\S+)\]", r"[\1,\2]", text))


def format_p_value(value: float | None) -> str:
    """Formats a p-value with three digits; `-` if there is none."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
