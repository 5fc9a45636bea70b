"""`replication.html`: the table, a figure of all claims, and each system with its runs."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from flaxdigits.reports.figures import DARK, LIGHT, Theme, blank, png
from flaxdigits.reports.replication import (
    HEADER,
    METRIC_LABELS,
    NOTE,
    ReplicationReport,
    Row,
    estimate_of,
    format_estimate,
)
from flaxdigits.reports.template import render, themed
from flaxdigits.studies.collection import Runs
from flaxdigits.studies.records import Record
from flaxdigits.studies.replication import FIGURES, HELD_OUT_METRIC

# Accuracies at which the scale of the claims may be marked.
MARKED = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998)
SMALLEST_ERROR = 5e-5  # that the scale can show
WIDTH, LEFT = 8.4, 0.235  # of a figure, in inches, and its margin with names, as a fraction
PROTOCOLS = {"original": "the original's", "held_out": "held out"}


def replication_page(report: ReplicationReport) -> str:
    """The page, with all its figures in it."""
    rows = report.rows()
    drawn = {"claims": lambda theme: claims_figure(rows, theme)}
    for system in report.systems:
        own = [row for row in rows if row.system is system]
        drawn[system.name] = lambda theme, own=own: runs_figure(own, theme)
    figures = themed({name: (png(draw(LIGHT)), png(draw(DARK))) for name, draw in drawn.items()})
    return render(
        "replication.html", title=report.title(), note=NOTE, hardware=report.hardware(),
        command=report.command, header=HEADER, figures=figures,
        rows=[row.cells() for row in rows],
        systems=[_system([row for row in rows if row.system is system])
                 for system in report.systems],
        left_out=sorted(report.collection.left_out.items()))


def claims_figure(rows: Sequence[Row], theme: Theme = LIGHT) -> Figure:
    """Each claim, above it the seeds that are compared with it and below it the held-out ones.

    The scale is that of the errors' logarithm, so that 99.9 and 99 % lie as far apart as 99 and 90.

    Args:
      rows: of the table.
      theme: colours.
    """
    width, height = WIDTH, 1.2 + 0.56 * len(rows)
    figure, axes = blank(width, height, theme)
    axes.set_position((LEFT, 0.62 / height, 0.97 - LEFT, 1 - 1.1 / height))
    shown = [row.claim.accuracy for row in rows]
    for place, row in enumerate(rows):
        axes.axhspan(place - 0.42, place + 0.42, color=theme.line, alpha=0.35, linewidth=0)
        for runs, name, offset, colour in (
                (row.own, row.claim.figure, -0.22, theme.text),
                (row.held_out, HELD_OUT_METRIC, 0.22, theme.held_out)):
            values = list(runs.values(name).values())
            _dots(axes, [_error(value) for value in values], place + offset, colour, runs, theme)
            shown += values
        axes.plot([_error(row.claim.accuracy)], [place], "D", markersize=6.5, color=theme.wrong)
    low, high = min(map(_error, shown)), max(map(_error, shown))
    axes.set_xlim(1.5 * high, low / 1.5)
    axes.set_xscale("log")
    ticks = [1 - mark for mark in MARKED if low / 1.5 <= 1 - mark <= 1.5 * high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * (1 - error):.6g} %"))
    axes.grid(axis="x", color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    _name_rows(axes, [f"{row.system.name}\n{row.claim.about or METRIC_LABELS[row.claim.figure]}"
                      for row in rows], theme)
    _headline(figure, "Claimed, reproduced and held out: accuracy, by the errors' logarithm", theme)
    _legend(figure, [("D", theme.wrong, "claimed"),
                     ("o", theme.text, "a seed, as the claim was measured"),
                     ("o", theme.held_out, "a seed, held out")], rows, theme)
    return figure


def runs_figure(rows: Sequence[Row], theme: Theme = LIGHT) -> Figure:
    """Every accuracy of a system's runs, a dot a seed, with the claims where they belong.

    Args:
      rows: of one system.
      theme: colours.
    """
    lines = _measured(rows)
    width, height = WIDTH, 1.3 + 0.42 * max(1, len(lines))
    figure, axes = blank(width, height, theme)
    axes.set_position((LEFT, 0.62 / height, 0.97 - LEFT, 1 - 1.1 / height))
    for place, (runs, name) in enumerate(lines):
        claims = [100 * row.claim.accuracy for row in rows
                  if (runs, name) == (row.own, row.claim.figure)]
        axes.plot(claims, [place - 0.34] * len(claims), "D", markersize=6, color=theme.wrong)
        values = [100 * value for value in runs.values(name).values()]
        colour = theme.held_out if name == HELD_OUT_METRIC else theme.text
        _dots(axes, values, place, colour, runs, theme)
        if len(values) > 1:
            axes.plot([sum(values) / len(values)] * 2, [place - 0.2, place + 0.2], color=colour,
                      linewidth=2, solid_capstyle="round", zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g} %"))
    axes.margins(x=0.06)
    axes.grid(axis="x", color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    several = len({runs.protocol for runs, _ in lines}) > 1
    _name_rows(axes, [METRIC_LABELS[name] + (f", {runs.recipe.data.split}" if several else "")
                      for runs, name in lines] or ["not run"], theme)
    _headline(figure, "Accuracy of every seed" + (
        f" (partial: {rows[0].own.partial})" if rows[0].own.partial else ""), theme)
    _legend(figure, [("D", theme.wrong, "claimed"), ("o", theme.text, "a seed"),
                     ("o", theme.held_out, "a seed, test images"), ("|", theme.muted, "mean")],
            rows, theme)
    return figure


def _measured(rows: Sequence[Row]) -> list[tuple[Runs, str]]:
    """What there is of a system's runs, training first."""
    row = rows[0]
    protocols = [row.own] if row.held_out is row.own else [row.own, row.held_out]
    return [(runs, name) for runs in protocols for name in FIGURES if runs.values(name)]


def _dots(
    axes: Axes, places: Sequence[float], height: float, colour: str, runs: Runs, theme: Theme
) -> None:
    """A seed each; hollow if the recipe was not run whole."""
    axes.plot(places, [height] * len(places), "o", markersize=6, markeredgewidth=1.1,
              color=theme.background if runs.partial else colour,
              markeredgecolor=colour if runs.partial else theme.background, alpha=0.9)


def _error(accuracy: float) -> float:
    return max(SMALLEST_ERROR, 1 - accuracy)


def _name_rows(axes: Axes, names: Sequence[str], theme: Theme) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8.5, color=theme.text, parse_math=False)
    axes.set_ylim(len(names) - 0.45, -0.55)


def _headline(figure: Figure, text: str, theme: Theme) -> None:
    figure.text(0.02, 1 - 0.28 / figure.get_figheight(), text, color=theme.text, fontsize=10.5,
                weight="bold", parse_math=False)


def _legend(
    figure: Figure, marks: Sequence[tuple[str, str, str]], rows: Sequence[Row], theme: Theme
) -> None:
    """Below the axes: a mark, its colour and its meaning; what is hollow, if something is."""
    handles = [Line2D([], [], color=colour, label=label, marker=mark, linestyle="none",
                      markersize=6, markeredgewidth=2 if mark == "|" else 0)
               for mark, colour, label in marks]
    if any(runs.partial for row in rows for runs in (row.own, row.held_out)):
        handles.append(Line2D(
            [], [], marker="o", linestyle="none", markersize=6, color=theme.background,
            markeredgecolor=theme.text, markeredgewidth=1.1, label="hollow: partial"))
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.012, 0.0), frameon=False,
                  ncols=len(handles), fontsize=8, labelcolor=theme.muted, handletextpad=0.3,
                  columnspacing=1.2)


def _system(rows: Sequence[Row]) -> dict[str, Any]:
    """What the page tells of one system."""
    system, protocols = rows[0].system, []
    for runs in dict.fromkeys(runs for runs, _ in _measured(rows)):
        result = next(iter(runs.records.values())).result
        protocols.append({
            "name": PROTOCOLS[runs.protocol],
            "told": f"{result['dataset']}, split {result['split']}: {result['train_examples']:,} "
                    f"images trained on, {result['epochs']:.3g} epochs, "
                    f"{result['parameters']:,} parameters",
            "partial": runs.partial, "diverged": ", ".join(map(str, runs.diverged)),
            "header": [METRIC_LABELS[name] for name in FIGURES if runs.values(name)],
            "mean": [format_estimate(estimate_of(runs, name))
                     for name in FIGURES if runs.values(name)],
            "seeds": [(seed, [f"{100 * record.result[name]:.2f}"
                              for name in FIGURES if runs.values(name)], _made_with(record))
                      for seed, record in sorted(runs.records.items())]})
    return {
        "name": system.name, "original": system.replication.original, "protocols": protocols,
        "claims": [(row.claim.about or METRIC_LABELS[row.claim.figure],
                    f"{100 * row.claim.accuracy:.2f}", row.sentences()) for row in rows]}


def _made_with(record: Record) -> str:
    versions = record.values.get("versions", {})
    commit = record.values.get("git_commit") or "unknown"
    return f"{record.machine}, JAX {versions.get('jax', 'unknown')}, commit {commit[:7]}"
