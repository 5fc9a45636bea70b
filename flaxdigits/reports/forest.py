"""Forest plots: differences with their 95 % intervals, a row each, and a dot for every seed."""

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from flaxdigits.reports.figures import LIGHT, Theme, blank_figure
from flaxdigits.studies.statistics import Difference

SIGNIFICANCE = 0.05
MAX_LABEL = 46  # characters in a line
MEAN_OFFSET, SEEDS_OFFSET = 0.1, -0.24  # where a row shows its mean and its seeds, in rows


@dataclasses.dataclass(frozen=True)
class ForestRow:
    """A row of a forest plot.

    Attributes:
      label: the name of the row.
      text: the mean, as printed on the right.
      difference: the difference that is drawn; None for a reference row, and for a row without a
        difference.
      seeds: the difference of each seed, or in a reference row the deviation of each seed from the
        mean; empty if the seeds are not paired.
      p: the corrected p-value; None if there is no test.
      is_paired: whether the difference is one of paired seeds.
      is_rated: whether a positive or negative difference is an improvement, so it has a color
        if it is significant.
    """

    label: str
    text: str
    difference: Difference | None
    seeds: Sequence[float] = ()
    p: float | None = None
    is_paired: bool = True
    is_rated: bool = True

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p is not None and self.p < SIGNIFICANCE


def forest(
    rows: Sequence[ForestRow], title: str, axis_label: str, mean_label: str, *, scale: float = 1,
    higher_is_better: bool = True, notes: Sequence[str] = (), theme: Theme = LIGHT,
) -> Figure:
    """Draws a forest plot, with an explanation of the marks that it contains.

    Args:
      rows: the rows, from top to bottom.
      title: the title.
      axis_label: the label of the horizontal axis.
      mean_label: the heading of the texts on the right.
      scale: the factor by which values are multiplied, such as 100 for percent.
      higher_is_better: whether positive differences are improvements.
      notes: further lines below the explanation of the marks.
      theme: the colors.
    """
    heading = textwrap.wrap(title, 96)
    space = "\N{NO-BREAK SPACE}"  # so that lines break between the explanations of two marks
    explained = "; ".join(mark.replace(" ", space) for mark in _marks(rows, higher_is_better))
    marks = [line.replace(space, " ") for text in (explained, *notes)
             for line in textwrap.wrap(text, 140)]
    width, head, foot = 8.4, 0.5 + 0.2 * len(heading), 0.62 + 0.16 * len(marks)  # inches
    height = head + foot + 0.36 * max(1, len(rows))
    figure, axes = blank_figure(width, height, theme)
    left = (0.3 + 0.074 * min(MAX_LABEL, max((len(row.label) for row in rows), default=4))) / width
    right = (0.3 + 0.068 * max(len(mean_label), *(len(row.text) for row in rows), 4)) / width
    axes.set_position((left, foot / height, 1 - right - left, 1 - (foot + head) / height))
    axes.axvline(0, color=theme.muted, linewidth=1)
    for line, row in enumerate(rows):
        axes.plot([scale * value for value in row.seeds],
                  [line + (SEEDS_OFFSET if row.difference else 0)] * len(row.seeds), "o",
                  markersize=3.5, color=theme.muted, markeredgewidth=0)
        axes.annotate(row.text, (1, line), (8, 0), ("axes fraction", "data"), "offset points",
                      va="center", fontsize=8.5, color=theme.text, annotation_clip=False)
        difference = row.difference
        if difference is None:
            continue
        color = theme.text
        if row.is_significant and row.is_rated:
            color = theme.right if (difference.mean > 0) == higher_is_better else theme.wrong
        if difference.low is not None and difference.high is not None:
            axes.plot([scale * difference.low, scale * difference.high], [line + MEAN_OFFSET] * 2,
                      color=color, linewidth=2, solid_capstyle="round")
        axes.plot([scale * difference.mean], [line + MEAN_OFFSET], "D" if row.is_paired else "s",
                  markersize=5.5, color=color, markeredgewidth=1.3,
                  markerfacecolor=color if row.is_significant else theme.background)
    axes.annotate(mean_label, (1, 1), (8, 4), "axes fraction", "offset points", fontsize=8,
                  color=theme.muted)
    labels = ["\n".join(textwrap.wrap(row.label, MAX_LABEL)) for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8.5, color=theme.text, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.grid(axis="x", color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(
        lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
    axes.set_xlabel(axis_label, color=theme.muted, fontsize=8)
    figure.text(0.02, 0.12 / height, "\n".join(marks), color=theme.muted, fontsize=8,
                linespacing=1.4, va="bottom", parse_math=False)
    figure.text(0.02, 1 - 0.13 / height, "\n".join(heading), color=theme.text, fontsize=10.5,
                weight="bold", va="top", linespacing=1.4, parse_math=False)
    return figure


def _marks(rows: Sequence[ForestRow], higher_is_better: bool) -> Iterator[str]:
    """Yields an explanation of every kind of mark in the rows."""
    drawn = [(row, row.difference) for row in rows if row.difference is not None]
    if any(row.seeds for row, _ in drawn):
        yield "dots: seeds"
    if any(row.seeds for row in rows if row.difference is None):
        yield "dots of a row without a diamond: its seeds around their mean"
    if any(row.is_paired for row, _ in drawn):
        yield "diamonds: mean differences"
    if any(difference.low is not None for _, difference in drawn):
        yield "lines: 95 % intervals"
    if any(row.is_significant for row, _ in drawn):
        yield f"filled: p < {SIGNIFICANCE} after Holm"
    better = {(difference.mean > 0) == higher_is_better
              for row, difference in drawn if row.is_significant and row.is_rated}
    yield from (text for text, is_better in (("green: better", True), ("red: worse", False))
                if is_better in better)
    if any(row.p is not None and not row.is_significant for row, _ in drawn):
        yield f"hollow: p ≥ {SIGNIFICANCE} after Holm"
    if not all(row.is_paired for row, _ in drawn):
        yield "squares: evaluated on other images, no test"
