"""The table of a study: for a terminal, as Markdown, CSV and JSON, and its figure."""

import csv
import dataclasses
import io
import json
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.table import Table
from rich.text import Text

from flaxdigits.metrics import Format
from flaxdigits.reports.figures import LIGHT, Theme, blank, png
from flaxdigits.reports.markdown import table_line
from flaxdigits.studies.ablation import Row, as_json
from flaxdigits.studies.statistics import Estimate

POINTS = "percentage points"


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """What the table of a study is made of.

    Attributes:
      title: one line.
      figure: the metric of `result.json` that is compared.
      formats: of every metric, by its name without the split.
      about: what a reader must know to repeat it, by name.
      rows: of the table, the base first.
    """

    title: str
    figure: str
    formats: Mapping[str, Format]
    about: Mapping[str, str]
    rows: Sequence[Row]

    def format_of(self, name: str) -> Format:
        """Returns the format of a metric of `result.json`, such as `test_accuracy`."""
        return self.formats[name.partition("_")[2]]

    def files(self) -> dict[str, bytes]:
        """The files by their names."""
        return {
            "study.md": self.markdown().encode(), "study.csv": self.csv().encode(),
            "study.json": (json.dumps(
                {"title": self.title, "figure": self.figure, "about": dict(self.about),
                 "rows": as_json(self.rows)}, indent=2, ensure_ascii=False) + "\n").encode(),
            "study.png": png(differences(
                self.rows, self.figure, self.format_of(self.figure), self.title))}

    def terminal(self) -> Table:
        """For a terminal."""
        table = Table(title=Text(self.title, "table.title"))
        for place, name in enumerate(self._header()):
            table.add_column(Text(name), justify="right" if place else "left")
        for row in self.rows:
            table.add_row(*map(Text, self._cells(row)))
        return table

    def markdown(self) -> str:
        """The table with all that is needed to repeat it."""
        header = self._header()
        lines = [f"# {self.title}", "", table_line(header),
                 "| --- |" + " ---: |" * (len(header) - 1)]
        lines += [table_line(self._cells(row)) for row in self.rows]
        lines += ["", *self.notes(), ""]
        lines += [f"- {name}: {text}" for name, text in self.about.items()]
        return "\n".join([*lines, "", "![differences](study.png)", ""])

    def notes(self) -> list[str]:
        """How the table is to be read."""
        tests = sum(row.p_holm is not None for row in self.rows)
        unit = f" in {POINTS}" if self.format_of(self.figure).is_fraction else ""
        lines = ["Means ± standard deviations over n seeds. "
                f"Difference to the base{unit} with its 95 % interval."]
        if tests:
            lines.append(f"p: paired t-test over the same seeds; Holm: corrected for {tests} "
                        f"test{'s' * (tests > 1)}.")
        if any(map(_lacks_pairs, self.rows)):
            lines.append("Where the base diverged with a seed, the difference and its test are "
                        "over the pairs that are left.")
        if not all(row.is_paired for row in self.rows):
            lines.append("Where the scored images are not those of the base, the interval is "
                        "Welch's and there is no test.")
        return lines

    def csv(self) -> str:
        """One line for each variant, numbers unrounded, fractions."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "n", "mean", "sd", "low", "high", "difference",
                         "difference_low", "difference_high", "pairs", "p", "p_holm", "diverged",
                         *(f"{name}_{part}" for name in self._also() for part in ("mean", "sd"))])
        for row in self.rows:
            value, difference = row.estimate, row.difference
            writer.writerow([
                row.variant,
                *([value.n, value.mean, value.sd, value.low, value.high] if value
                  else [0, *[None] * 4]),
                *([difference.mean, difference.low, difference.high,
                   difference.n if row.is_paired else None, difference.p]
                  if difference else [None] * 5),
                row.p_holm, " ".join(map(str, row.diverged)),
                *(getattr(row.also.get(name), part, None)
                  for name in self._also() for part in ("mean", "sd"))])
        return file.getvalue()

    def _header(self) -> list[str]:
        return ["variant", "n", self._heading(self.figure), "to the base", "p", "p, Holm",
                *map(self._heading, self._also())]

    def _cells(self, row: Row) -> list[str]:
        value, form = row.estimate, self.format_of(self.figure)
        mean = _mean(value, form)
        if row.diverged:
            mean += f" ({len(row.diverged)} diverged)"
        p = row.difference.p if row.difference else None
        return [row.variant, str(value.n if value else 0), mean, _difference(row, form),
                _p(p), _p(row.p_holm),
                *(_mean(row.also.get(name), self.format_of(name)) for name in self._also())]

    def _heading(self, name: str) -> str:
        return _spoken(name) + (", %" if self.format_of(name).is_fraction else "")

    def _also(self) -> list[str]:
        return list(self.rows[0].also)


def differences(
    rows: Sequence[Row], figure: str, form: Format, title: str, theme: Theme = LIGHT
) -> Figure:
    """Each variant's difference to the base: its 95 % interval, and a dot for each seed.

    Args:
      rows: the base first.
      figure: the name of the metric.
      form: its format.
      title: over the figure.
      theme: colours.
    """
    base, *others = rows
    scale = 100 if form.is_fraction else 1
    others = [row for row in others if row.difference is not None]
    longest = max((len(row.variant) for row in others), default=4)
    heading = textwrap.wrap(title, 74)
    head = 0.28 + 0.2 * len(heading)  # inches
    width, height = 7.2, 0.87 + head + 0.36 * max(1, len(others))
    drawing, axes = blank(width, height, theme)
    left = min(0.5, (0.35 + 0.074 * longest) / width)
    axes.set_position((left, 0.72 / height, 0.97 - left, 1 - (0.72 + head) / height))
    axes.axvline(0, color=theme.muted, linewidth=1)
    for place, row in enumerate(others):
        difference = row.difference
        colour = theme.text
        if row.p_holm is not None and row.p_holm < 0.05:
            colour = theme.right if (difference.mean > 0) == form.higher_is_better else theme.wrong
        seeds = [row.values[seed] - base.values[seed]
                 for seed in row.values if seed in base.values] if row.is_paired else []
        axes.plot([scale * value for value in seeds], [place - 0.24] * len(seeds), "o",
                  markersize=3.5, color=theme.muted, markeredgewidth=0)
        if difference.low is not None:
            axes.plot([scale * difference.low, scale * difference.high], [place, place],
                      color=colour, linewidth=2, solid_capstyle="round")
        axes.plot([scale * difference.mean], [place], "D" if row.is_paired else "s", markersize=5.5,
                  color=colour)
    axes.set_yticks(range(len(others)), [row.variant for row in others], fontsize=8.5,
                    color=theme.text, parse_math=False)
    axes.set_ylim(len(others) - 0.4, -0.6)
    axes.grid(axis="x", color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(
        lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
    from_base = (f"{POINTS} from the base's {100 * base.estimate.mean:.2f} %" if form.is_fraction
                 else f"difference from the base's {base.estimate.mean:.4g}")
    axes.set_xlabel(
        f"{_spoken(figure)}, {from_base}",
        color=theme.muted, fontsize=8)
    drawing.text(
        0.5, 0.13 / height,
        "dots: seeds; lines: 95 % intervals; colour: p < 0.05 after Holm; squares: other images",
        color=theme.muted, fontsize=8, ha="center")
    drawing.text(0.02, 1 - 0.13 / height, "\n".join(heading), color=theme.text, fontsize=10.5,
                 weight="bold", va="top", linespacing=1.4, parse_math=False)
    return drawing


def _spoken(figure: str) -> str:
    return figure.replace("_", " ")


def _mean(value: Estimate | None, form: Format) -> str:
    if value is None:
        return "-"
    scale, digits = (100, ".2f") if form.is_fraction else (1, ".4g")
    spread = "" if value.sd is None else f" ± {scale * value.sd:{digits}}"
    return f"{scale * value.mean:{digits}}{spread}"


def _difference(row: Row, form: Format) -> str:
    difference = row.difference
    if difference is None:
        return "-"
    scale, digits = (100, "+.2f") if form.is_fraction else (1, "+.4g")
    interval = "" if difference.low is None else (
        f" [{scale * difference.low:{digits}}, {scale * difference.high:{digits}}]")
    pairs = f", {difference.n} pair{'s' * (difference.n != 1)}" if _lacks_pairs(row) else ""
    return f"{scale * difference.mean:{digits}}{interval}{pairs}"


def _lacks_pairs(row: Row) -> bool:
    """Whether a seed of the row has none of the base to be compared with."""
    return (row.is_paired and row.difference is not None
            and row.difference.n != row.estimate.n)


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
