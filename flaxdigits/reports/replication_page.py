"""Renders `replication.html`: the table, a figure of all claims, and the runs of each system."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from flaxdigits.plurals import counted, listed
from flaxdigits.reports.figures import DARK, LIGHT, Theme, blank_figure, png
from flaxdigits.reports.replication import (
    HEADER,
    METRIC_LABELS,
    NOTE,
    ClaimRow,
    ReplicationReport,
    estimate_of,
    format_estimate,
)
from flaxdigits.reports.template import render, themed
from flaxdigits.studies.collection import ProtocolRuns
from flaxdigits.studies.records import RunRecord
from flaxdigits.studies.replication import ACCURACIES, HELD_OUT_METRIC

# Accuracies at which the axis of the claims may have a tick.
TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998)
MIN_ERROR = 5e-5  # at the end of the logarithmic axis
WIDTH, LEFT = 8.4, 0.235  # the width of a figure in inches, and its left margin as a fraction
PROTOCOLS = {"original": "original", "held_out": "held out"}


def report_files(report: ReplicationReport) -> dict[str, bytes]:
    """Returns all files of a report by name, including the page."""
    return {**report.files(), "replication.html": replication_page(report).encode()}


def replication_page(report: ReplicationReport) -> str:
    """Renders the page with all figures."""
    rows = report.rows()
    rows_by_system = {
        system.name: [row for row in rows if row.system is system] for system in report.systems}
    figures = themed({
        "claims": (png(claims_figure(rows, LIGHT)), png(claims_figure(rows, DARK))),
        **{name: (png(runs_figure(system_rows, LIGHT)), png(runs_figure(system_rows, DARK)))
           for name, system_rows in rows_by_system.items()}})
    return render(
        "replication.html", title=report.title(), note=NOTE, hardware=report.hardware(),
        command=report.command, header=HEADER, figures=figures,
        rows=[row.cells() for row in rows],
        systems=[_system(system_rows) for system_rows in rows_by_system.values()],
        skipped=sorted(report.collection.skipped.items()))


def claims_figure(rows: Sequence[ClaimRow], theme: Theme = LIGHT) -> Figure:
    """Draws each claim with the seeds that are compared with it, and the held-out seeds.

    The axis is logarithmic in the error rate, so 99.9 % and 99 % have the same distance as
    99 % and 90 %.

    Args:
      rows: the rows of the table.
      theme: the colors.
    """
    width, height = WIDTH, 1.2 + 0.56 * len(rows)
    figure, axes = blank_figure(width, height, theme)
    axes.set_position((LEFT, 0.62 / height, 0.97 - LEFT, 1 - 1.1 / height))
    shown = [row.claim.accuracy for row in rows]
    for line, row in enumerate(rows):
        axes.axhspan(line - 0.42, line + 0.42, color=theme.line, alpha=0.35, linewidth=0)
        for runs, name, offset, color in (
                (row.original, row.claim.metric, -0.22, theme.text),
                (row.held_out, HELD_OUT_METRIC, 0.22, theme.held_out)):
            values = list(runs.values(name).values())
            _dots(axes, [_error_rate(value) for value in values], line + offset, color, runs, theme)
            shown += values
        axes.plot([_error_rate(row.claim.accuracy)], [line], "D", markersize=6.5, color=theme.wrong)
    low, high = min(map(_error_rate, shown)), max(map(_error_rate, shown))
    axes.set_xlim(1.5 * high, low / 1.5)
    axes.set_xscale("log")
    ticks = [1 - tick for tick in TICKS if low / 1.5 <= 1 - tick <= 1.5 * high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * (1 - error):.6g} %"))
    axes.grid(axis="x", color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    _label_rows(axes, [f"{row.system.name}\n{row.label}" for row in rows], theme)
    _headline(figure, "Claimed, reproduced and held out: accuracy, error on a log scale", theme)
    _legend(figure, [("D", theme.wrong, "claimed"),
                     ("o", theme.text, "a seed, original protocol"),
                     ("o", theme.held_out, "a seed, held out")], rows, theme)
    return figure


def runs_figure(rows: Sequence[ClaimRow], theme: Theme = LIGHT) -> Figure:
    """Draws every accuracy of the runs of a system, a dot for each seed, and the claims.

    Args:
      rows: the rows of the system.
      theme: the colors.
    """
    lines = _accuracies_of(rows)
    width, height = WIDTH, 1.3 + 0.42 * max(1, len(lines))
    figure, axes = blank_figure(width, height, theme)
    axes.set_position((LEFT, 0.62 / height, 0.97 - LEFT, 1 - 1.1 / height))
    for line, (runs, name) in enumerate(lines):
        claims = [100 * row.claim.accuracy for row in rows
                  if (runs, name) == (row.original, row.claim.metric)]
        axes.plot(claims, [line - 0.34] * len(claims), "D", markersize=6, color=theme.wrong)
        values = [100 * value for value in runs.values(name).values()]
        color = theme.held_out if name == HELD_OUT_METRIC else theme.text
        _dots(axes, values, line, color, runs, theme)
        if len(values) > 1:
            axes.plot([sum(values) / len(values)] * 2, [line - 0.2, line + 0.2], color=color,
                      linewidth=2, solid_capstyle="round", zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g} %"))
    axes.margins(x=0.06)
    axes.grid(axis="x", color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    has_several_protocols = len({runs.protocol for runs, _ in lines}) > 1
    labels = [METRIC_LABELS[name] + (
        f", {runs.recipe.data.split}" if has_several_protocols else "") for runs, name in lines]
    _label_rows(axes, labels or ["not run"], theme)
    partial = rows[0].original.partial
    _headline(figure, "Accuracy of every seed" + (f" (partial: {partial})" if partial else ""),
              theme)
    held_out = [name == HELD_OUT_METRIC for _, name in lines]
    marks = [
        (any(line == (row.original, row.claim.metric) for row in rows for line in lines),
         ("D", theme.wrong, "claimed")),
        (not all(held_out), ("o", theme.text, "a seed")),
        (any(held_out), ("o", theme.held_out, "a seed, test images")),
        (any(len(runs.values(name)) > 1 for runs, name in lines), ("|", theme.muted, "mean"))]
    _legend(figure, [mark for is_drawn, mark in marks if is_drawn], rows, theme)
    return figure


def _accuracies_of(rows: Sequence[ClaimRow]) -> list[tuple[ProtocolRuns, str]]:
    """Returns the accuracies that the runs of a system have, as (runs, metric)."""
    row = rows[0]
    protocols = [row.original] if row.held_out is row.original else [row.original, row.held_out]
    return [(runs, name) for runs in protocols for name in ACCURACIES if runs.values(name)]


def _dots(
    axes: Axes, values: Sequence[float], height: float, color: str, runs: ProtocolRuns,
    theme: Theme,
) -> None:
    """Draws a dot for each seed, hollow if only a part of the recipe was run."""
    axes.plot(values, [height] * len(values), "o", markersize=6, markeredgewidth=1.1,
              color=theme.background if runs.partial else color,
              markeredgecolor=color if runs.partial else theme.background, alpha=0.9)


def _error_rate(accuracy: float) -> float:
    """Returns the error rate, at least `MIN_ERROR`, since a logarithmic axis cannot show 0."""
    return max(MIN_ERROR, 1 - accuracy)


def _label_rows(axes: Axes, names: Sequence[str], theme: Theme) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8.5, color=theme.text, parse_math=False)
    axes.set_ylim(len(names) - 0.45, -0.55)


def _headline(figure: Figure, text: str, theme: Theme) -> None:
    figure.text(0.02, 1 - 0.28 / figure.get_figheight(), text, color=theme.text, fontsize=10.5,
                weight="bold", parse_math=False)


def _legend(
    figure: Figure, marks: Sequence[tuple[str, str, str]], rows: Sequence[ClaimRow], theme: Theme
) -> None:
    """Adds a legend below the axes: (marker, color, meaning), and the meaning of hollow dots."""
    handles = [Line2D([], [], color=color, label=label, marker=mark, linestyle="none",
                      markersize=6, markeredgewidth=2 if mark == "|" else 0)
               for mark, color, label in marks]
    if any(runs.partial for row in rows for runs in (row.original, row.held_out)):
        handles.append(Line2D(
            [], [], marker="o", linestyle="none", markersize=6, color=theme.background,
            markeredgecolor=theme.text, markeredgewidth=1.1, label="hollow: partial"))
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.012, 0.0), frameon=False,
                  ncols=len(handles), fontsize=8, labelcolor=theme.muted, handletextpad=0.3,
                  columnspacing=1.2)


def _system(rows: Sequence[ClaimRow]) -> dict[str, Any]:
    """Returns the template values of one system."""
    system, protocols = rows[0].system, []
    for runs in dict.fromkeys(runs for runs, _ in _accuracies_of(rows)):
        result = next(iter(runs.records.values())).result
        protocols.append({
            "name": PROTOCOLS[runs.protocol],
            "summary": f"{result['dataset']}, split {result['split']}: "
                       f"{result['train_examples']:,} training images, "
                       f"{counted(result['epochs'], 'epoch')}, {result['parameters']:,} parameters",
            "partial": runs.partial,
            "diverged": listed("seed", runs.diverged) if runs.diverged else "",
            "header": [METRIC_LABELS[name] for name in ACCURACIES if runs.values(name)],
            "mean": [format_estimate(mean) for name in ACCURACIES
                     if (mean := estimate_of(runs, name)) is not None],
            "seeds": [(seed, [f"{100 * record.result[name]:.2f}"
                              for name in ACCURACIES if runs.values(name)], _environment(record))
                      for seed, record in sorted(runs.records.items())]})
    return {
        "name": system.name, "original": system.replication.original, "protocols": protocols,
        "claims": [(row.label, f"{100 * row.claim.accuracy:.2f}", row.explanation())
                   for row in rows]}


def _environment(record: RunRecord) -> str:
    versions = record.values.get("versions", {})
    commit = record.values.get("git_commit") or "unknown"
    return f"{record.machine}, JAX {versions.get('jax', 'unknown')}, commit {commit[:7]}"
