"""Plots the norms that `train.log_norms` logs."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from flaxdigits.reports.figures import LIGHT, Theme, blank_figure

NORMS = ("parameter", "gradient", "update")


def has_norms(rows: Sequence[dict[str, Any]]) -> bool:
    """Returns whether any row of `metrics.jsonl` has a norm that a logarithmic axis can show."""
    return any(row.get(f"{name}_norm", 0) > 0 for row in rows for name in NORMS)


def norm_curves(
    rows: Sequence[dict[str, Any]], result: Mapping[str, Any], theme: Theme = LIGHT
) -> Figure:
    """Plots the norms of parameters, gradient and update on a logarithmic axis.

    Args:
      rows: the rows of `metrics.jsonl`.
      result: the content of `result.json`.
      theme: the colors.
    """
    figure, axes = blank_figure(5.2, 3.4, theme)
    figure.subplots_adjust(left=0.125, right=0.96, bottom=0.15, top=0.89)
    steps_per_epoch = result["steps"] / result["epochs"]
    for name, color in zip(NORMS, (theme.text, theme.held_out, theme.wrong), strict=True):
        points = [row for row in rows if row.get(f"{name}_norm", 0) > 0]
        axes.plot([row["step"] / steps_per_epoch for row in points],
                  [row[f"{name}_norm"] for row in points], label=name, color=color,
                  linewidth=1.5, **({"marker": "o", "markersize": 4} if len(points) < 20 else {}))
    axes.set_xlabel("epoch", color=theme.muted, fontsize=8.5)
    axes.set_xlim(left=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(
        7, steps=(1, 2, 5, 10), integer=result["epochs"] >= 4))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.15)  # room for the legend
    axes.set_title("Norms", loc="left", color=theme.text, fontsize=10.5, weight="bold")
    axes.grid(axis="y", color=theme.line, linewidth=0.8)
    axes.legend(loc="upper right", ncols=3, fontsize=8, labelcolor=theme.text, framealpha=1,
                facecolor=theme.background, edgecolor="none")
    return figure
