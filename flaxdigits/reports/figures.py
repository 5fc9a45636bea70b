"""The figures of a run: learning curves, confusion matrix, first-layer filters.

Each function returns a new matplotlib `Figure` and changes no global state; `png` renders it.
"""

import dataclasses
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from flaxdigits.reports.fonts import Labels, families

DOTS_PER_INCH = 160
MAX_NUMBERED_CLASSES = 30  # a confusion matrix of more classes has no numbers in its cells
MAX_NAMED_CLASSES = 60  # a confusion matrix of more classes does not name every row
MAX_FILTERS = 64
WEIGHTS = ("#08306b", "#8b8f96", "#ffd74d")  # the colors of negative, zero and positive weights


@dataclasses.dataclass(frozen=True)
class Theme:
    """Matplotlib colors of the parts of a figure."""

    background: str
    text: str
    muted: str
    line: str
    training: str
    held_out: str
    right: str
    wrong: str


LIGHT = Theme(
    background="#ffffff", text="#1c2024", muted="#60646c", line="#dcdfe4", training="#8b8d98",
    held_out="#0b68cb", right="#208368", wrong="#ce2c31")
DARK = Theme(
    background="#18191b", text="#edeef0", muted="#b0b4ba", line="#363a3f", training="#8f939b",
    held_out="#70b8ff", right="#3dd68c", wrong="#ff9592")


def png(figure: Figure) -> bytes:
    """Renders a figure as a PNG file.

    If no installed font has Chinese characters, those in names of files and variants become boxes.
    """
    file, fonts = io.BytesIO(), families()
    for text in figure.findobj(Text):
        if text.get_fontproperties().get_file() is None:
            text.set_fontfamily(fonts)  # the second is the fallback for missing characters
    with warnings.catch_warnings():
        if len(fonts) == 1:
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    return file.getvalue()


def curves(
    rows: Sequence[dict[str, Any]], result: Mapping[str, Any], what: Literal["loss", "error"],
    theme: Theme = LIGHT,
) -> Figure:
    """Plots the loss or the error rate during training: curves for training and validation.

    The test split is a point at the end. The vertical axis is logarithmic if the largest value is
    more than four times the smallest, so that 1 % and 2 % are as far apart as 10 % and 20 %; values
    of zero are then at a tick below the others. Otherwise the axis is linear and begins at zero.

    Args:
      rows: the rows of `metrics.jsonl`.
      result: the content of `result.json`.
      what: the metric to plot; the error rate is 1 - accuracy.
      theme: the colors.
    """
    figure, axes = blank_figure(5.2, 3.4, theme)
    figure.subplots_adjust(left=0.125, right=0.96, bottom=0.15, top=0.87)
    steps_per_epoch = result["steps"] / result["epochs"]
    metric = "accuracy" if what == "error" else what

    def values(name: str, found: Sequence[Mapping[str, Any]]) -> list[float]:
        return [1 - row[name] if what == "error" else row[name] for row in found]

    lines = []  # label, epochs, values, style
    for split, label, style in (
            ("train", "training (running)", {"color": theme.training, "linewidth": 1.2}),
            ("validation", "validation", {"color": theme.held_out, "linewidth": 2})):
        found = [row for row in rows if row.get(f"{split}_{metric}") is not None]
        if found:
            style |= {"marker": "o", "markersize": 4} if len(found) < 20 else {}
            lines.append((label, [row["step"] / steps_per_epoch for row in found],
                          values(f"{split}_{metric}", found), style))
    if result[f"test_{metric}"] is not None:
        lines.append((
            "test, at the end", [result["checkpoint_step"] / steps_per_epoch],
            values(f"test_{metric}", [result]),
            {"color": theme.wrong, "marker": "D", "linestyle": "none", "zorder": 5}))

    zero = _scale_values(axes, [value for _, _, found, _ in lines for value in found],
                         percent=what == "error")
    for label, epochs, found, style in lines:
        axes.plot(epochs, [value or zero for value in found], label=label, clip_on=False, **style)
    axes.set_xlabel("epoch", color=theme.muted, fontsize=8.5)
    axes.set_xlim(left=0)
    axes.set_title("Error rate" if what == "error" else "Loss", loc="left", color=theme.text,
                   fontsize=10.5, weight="bold", pad=10)
    axes.grid(axis="y", color=theme.line, linewidth=0.8)
    axes.tick_params(axis="x", pad=6)
    if lines:  # the legend is above the axes, where it covers no curve
        axes.legend(loc="lower right", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.2,
                    frameon=False, ncols=3, fontsize=8, labelcolor=theme.text, columnspacing=1.2,
                    handlelength=1.4, handletextpad=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(
        7, steps=(1, 2, 5, 10), integer=result["epochs"] >= 4))
    return figure


def _scale_values(axes: Axes, values: Sequence[float], percent: bool) -> float:
    """Sets the scale of the vertical axis; returns the position at which to plot a value of 0.

    Args:
      axes: the axes.
      values: all values that are plotted.
      percent: whether ticks are fractions to be shown in percent.

    Returns:
      0.0 on a linear axis, and half the smallest positive value on a logarithmic one, where log(0)
      does not exist.
    """
    def text(value: float, _: int) -> str:
        return f"{100 * value:g} %" if percent else f"{value:g}"

    if not values:
        return 0.0
    positive = [value for value in values if value > 0]
    if min(values) < 0 or not positive or max(positive) <= 4 * min(positive):
        if min(values) >= 0:
            axes.set_ylim(0, 1.08 * max(values) or 1)
        axes.yaxis.set_major_formatter(FuncFormatter(text))
        return 0.0
    low, high = min(positive), max(positive)
    zero = low / 2
    axes.set_yscale("log")
    axes.set_ylim((zero if len(positive) < len(values) else low) / 1.25, high * 1.25)
    subs = (1, 2, 5) if high < 2000 * low else (1,)
    ticks = [tick for tick in LogLocator(subs=subs).tick_values(low, high)
             if low / 1.25 <= tick <= high * 1.25]
    if len(positive) < len(values):
        ticks.insert(0, zero)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(
        lambda value, _: "0" if value == zero else text(value, _)))
    axes.yaxis.set_minor_locator(NullLocator())
    return zero


def confusion(counts: np.ndarray, labels: Labels, theme: Theme = LIGHT) -> Figure:
    """Draws a confusion matrix. Correct predictions and errors have separate color scales.

    Args:
      counts: the matrix that `flaxdigits.metrics.confusion` returns.
      labels: the names of the classes.
      theme: the colors.
    """
    classes = len(counts)
    longest = max(map(len, labels.names[:MAX_NAMED_CLASSES]))
    margin = 0.45 + min(0.08 * longest, 1.5)
    side = 4.6
    width, height = margin + side + 0.52, margin + side + 0.08
    figure, axes = blank_figure(width, height, theme)
    axes.set_position((margin / width, 0.06 / height, side / width, side / height))
    is_right = np.eye(classes, dtype=bool)
    cell = 72 * side / classes  # points
    size = min(9.5, cell / (0.62 * len(str(counts.max())) + 0.7))
    for mask, color in ((is_right, theme.right), (~is_right, theme.wrong)):
        shown = np.ma.masked_array(np.sqrt(counts), ~mask | (counts == 0))
        shade = LinearSegmentedColormap.from_list("", [_mix(theme, color, 0.18), color])
        axes.imshow(shown, cmap=shade, vmin=0, vmax=max(1, shown.max() if shown.count() else 1))
    if classes <= MAX_NUMBERED_CLASSES:
        strongest = [max(1, counts[mask].max(initial=0)) for mask in (~is_right, is_right)]
        for row, column in zip(*np.nonzero(counts), strict=True):
            count = counts[row, column]
            strong = np.sqrt(count / strongest[int(row == column)]) > 0.55
            axes.text(column, row, str(count), ha="center", va="center", fontsize=size,
                      color=theme.background if strong else theme.text)
    ticks = range(0, classes, -(-classes // MAX_NAMED_CLASSES))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(list(ticks), [labels.names[tick] for tick in ticks],
                       font=labels.font, color=theme.text, parse_math=False,
                       fontsize=min(10, 0.7 * cell * ticks.step))
    axes.tick_params(length=0, pad=3, labeltop=True, labelbottom=False,
                     labelrotation=90 if longest > 3 else 0, axis="x")
    axes.tick_params(length=0, pad=3, axis="y")
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=theme.line, linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted", color=theme.muted, fontsize=8.5)
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true", color=theme.muted, fontsize=8.5)
    if classes <= MAX_NUMBERED_CLASSES:
        small = {"fontsize": min(7.5, cell * 0.45), "color": theme.muted}
        axes.annotate("recall", (1, 1), (4, 6), "axes fraction", "offset points", **small)
        for row, total in enumerate(counts.sum(1)):
            if total:
                axes.annotate(f"{counts[row, row] / total:.1%}", (classes - 0.5, row), (4, 0),
                              textcoords="offset points", va="center", **small)
    return figure


def first_layer(filters: np.ndarray, theme: Theme = LIGHT) -> Figure:
    """Draws the filters of the first layer, from dark blue (negative) through gray to yellow.

    The lightness of the colors increases with the weights, so they differ in grayscale too.

    Args:
      filters: [filters, height, width] float32. Only the first 64 are drawn.
      theme: the colors.
    """
    shown = filters[:MAX_FILTERS]
    columns = min(8, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = blank_figure(5.2, 5.2 * lines / columns + 0.5, theme)
    height = 5.2 * lines / columns / (5.2 * lines / columns + 0.5)
    axes.set_position((0.01, 0.01, 0.98, height * 0.98))
    axes.set_axis_off()
    scale = np.abs(shown).max() or 1
    shade = LinearSegmentedColormap.from_list("", WEIGHTS)
    rows, wide = shown.shape[1:]
    edge = max(rows, wide) * 1.12
    for position, kernel in enumerate(shown):
        left, top = position % columns * edge, position // columns * edge
        axes.imshow(kernel, cmap=shade, vmin=-scale, vmax=scale,
                    extent=(left, left + wide, top + rows, top))
        axes.plot([left, left + wide, left + wide, left, left],
                  [top, top, top + rows, top + rows, top], color=theme.line, linewidth=0.8)
    axes.set_xlim(-0.06 * edge, columns * edge)
    axes.set_ylim(lines * edge, -0.06 * edge)
    more = f" of {len(filters)}" if len(filters) > len(shown) else ""
    figure.text(0.01, 1 - 0.3 / figure.get_figheight(), f"{len(shown)}{more} filters of "
                f"{rows}x{wide}, from {-scale:.2f} (dark blue) to {scale:.2f} (yellow)",
                fontsize=8.5, color=theme.muted)
    return figure


def blank_figure(width: float, height: float, theme: Theme) -> tuple[Figure, Axes]:
    """Creates a figure with axes in the colors of the theme; width and height in inches."""
    figure = Figure(figsize=(width, height), facecolor=theme.background)
    axes = figure.add_subplot(facecolor=theme.background)
    axes.tick_params(colors=theme.muted, labelsize=8.5, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.line)
    return figure, axes


def _mix(theme: Theme, color: str, share: float) -> tuple[float, ...]:
    """Blends a share of a color, from 0 to 1, with the background."""
    def channels(text: str) -> list[int]:
        return [int(text[start:start + 2], 16) for start in (1, 3, 5)]

    return tuple((share * ink + (1 - share) * paper) / 255 for ink, paper in zip(
        channels(color), channels(theme.background), strict=True))
