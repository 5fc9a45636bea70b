"""The report of a study: a table for the terminal, Markdown, CSV and JSON files, and a figure."""

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
from flaxdigits.studies.ablation import VariantResult, as_json
from flaxdigits.studies.statistics import Estimate

POINTS = "percentage points"


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """The report of a study.

    Attributes:
      title: the title of the study.
      metric: the metric of `result.json` that is compared.
      formats: the format of every metric by its name without the split.
      about: what is needed to repeat the study, by name.
      variants: the results of the variants, the base first.
    """

    title: str
    metric: str
    formats: Mapping[str, Format]
    about: Mapping[str, str]
    variants: Sequence[VariantResult]

    def format_of(self, name: str) -> Format:
        """Returns the format of a metric of `result.json`, such as `test_accuracy`."""
        return self.formats[name.partition("_")[2]]

    def files(self) -> dict[str, bytes]:
        """Returns the files by name."""
        return {
            "study.md": self.markdown().encode(), "study.csv": self.csv().encode(),
            "study.json": (json.dumps(
                {"title": self.title, "metric": self.metric, "about": dict(self.about),
                 "rows": as_json(self.variants)}, indent=2, ensure_ascii=False) + "\n").encode(),
            "study.png": png(differences(
                self.variants, self.metric, self.format_of(self.metric), self.title))}

    def terminal(self) -> Table:
        """Returns the table for a terminal."""
        table = Table(title=Text(self.title, "table.title"))
        for column, name in enumerate(self._header()):
            table.add_column(Text(name), justify="right" if column else "left")
        for result in self.variants:
            table.add_row(*map(Text, self._cells(result)))
        return table

    def markdown(self) -> str:
        """Returns the table in Markdown, with notes and what is needed to repeat the study."""
        header = self._header()
        lines = [f"# {self.title}", "", table_line(header),
                 "| --- |" + " ---: |" * (len(header) - 1)]
        lines += [table_line(self._cells(result)) for result in self.variants]
        lines += ["", *self.notes(), ""]
        lines += [f"- {name}: {text}" for name, text in self.about.items()]
        return "\n".join([*lines, "", "![differences](study.png)", ""])

    def notes(self) -> list[str]:
        """Returns the notes below the table, as lines."""
        tests = sum(result.p_holm is not None for result in self.variants)
        unit = f" in {POINTS}" if self.format_of(self.metric).is_fraction else ""
        lines = ["Means ± standard deviations over n seeds. "
                f"Difference to the base{unit} with its 95 % interval."]
        if tests:
            lines.append(f"p: paired t-test over the same seeds; Holm: corrected for {tests} "
                        f"test{'s' * (tests > 1)}.")
        if any(map(_has_unpaired_seeds, self.variants)):
            lines.append("If the base diverged with a seed, the difference and its test are "
                        "computed over the remaining pairs.")
        if not all(result.is_paired for result in self.variants):
            lines.append("If a variant is evaluated on other images than the base, the interval is "
                        "Welch's and there is no test.")
        return lines

    def csv(self) -> str:
        """Returns the CSV file: a line for each variant, with unrounded numbers and fractions."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "n", "mean", "sd", "low", "high", "difference",
                         "difference_low", "difference_high", "pairs", "p", "p_holm", "diverged",
                         *(f"{name}_{part}" for name in self._extra_metrics()
                           for part in ("mean", "sd"))])
        for result in self.variants:
            value, difference = result.estimate, result.difference
            writer.writerow([
                result.variant,
                *([value.n, value.mean, value.sd, value.low, value.high] if value
                  else [0, *[None] * 4]),
                *([difference.mean, difference.low, difference.high,
                   difference.n if result.is_paired else None, difference.p]
                  if difference else [None] * 5),
                result.p_holm, " ".join(map(str, result.diverged)),
                *(getattr(result.extra_metrics.get(name), part, None)
                  for name in self._extra_metrics() for part in ("mean", "sd"))])
        return file.getvalue()

    def _header(self) -> list[str]:
        return ["variant", "n", self._heading(self.metric), "to the base", "p", "p, Holm",
                *map(self._heading, self._extra_metrics())]

    def _cells(self, result: VariantResult) -> list[str]:
        value, form = result.estimate, self.format_of(self.metric)
        mean = _mean(value, form)
        if result.diverged:
            mean += f" ({len(result.diverged)} diverged)"
        p = result.difference.p if result.difference else None
        return [result.variant, str(value.n if value else 0), mean, _difference(result, form),
                _p(p), _p(result.p_holm),
                *(_mean(result.extra_metrics.get(name), self.format_of(name))
                  for name in self._extra_metrics())]

    def _heading(self, name: str) -> str:
        return _words(name) + (", %" if self.format_of(name).is_fraction else "")

    def _extra_metrics(self) -> list[str]:
        return list(self.variants[0].extra_metrics)


def differences(
    variants: Sequence[VariantResult], metric: str, form: Format, title: str,
    theme: Theme = LIGHT,
) -> Figure:
    """Draws the difference of each variant to the base: the 95 % interval, and a dot per seed.

    Args:
      variants: the results of the variants, the base first.
      metric: the name of the compared metric.
      form: the format of the metric.
      title: the title of the figure.
      theme: the colours.
    """
    base, *others = variants
    scale = 100 if form.is_fraction else 1
    others = [result for result in others if result.difference is not None]
    longest = max((len(result.variant) for result in others), default=4)
    heading = textwrap.wrap(title, 74)
    head = 0.28 + 0.2 * len(heading)  # inches
    width, height = 7.2, 0.87 + head + 0.36 * max(1, len(others))
    drawing, axes = blank(width, height, theme)
    left = min(0.5, (0.35 + 0.074 * longest) / width)
    axes.set_position((left, 0.72 / height, 0.97 - left, 1 - (0.72 + head) / height))
    axes.axvline(0, color=theme.muted, linewidth=1)
    for line, result in enumerate(others):
        difference = result.difference
        colour = theme.text
        if result.p_holm is not None and result.p_holm < 0.05:
            colour = theme.right if (difference.mean > 0) == form.higher_is_better else theme.wrong
        seeds = [result.values[seed] - base.values[seed]
                 for seed in result.values if seed in base.values] if result.is_paired else []
        axes.plot([scale * value for value in seeds], [line - 0.24] * len(seeds), "o",
                  markersize=3.5, color=theme.muted, markeredgewidth=0)
        if difference.low is not None:
            axes.plot([scale * difference.low, scale * difference.high], [line, line],
                      color=colour, linewidth=2, solid_capstyle="round")
        axes.plot([scale * difference.mean], [line], "D" if result.is_paired else "s",
                  markersize=5.5, color=colour)
    axes.set_yticks(range(len(others)), [result.variant for result in others], fontsize=8.5,
                    color=theme.text, parse_math=False)
    axes.set_ylim(len(others) - 0.4, -0.6)
    axes.grid(axis="x", color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(
        lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
    from_base = (f"{POINTS} from the base's {100 * base.estimate.mean:.2f} %" if form.is_fraction
                 else f"difference from the base's {base.estimate.mean:.4g}")
    axes.set_xlabel(
        f"{_words(metric)}, {from_base}",
        color=theme.muted, fontsize=8)
    drawing.text(
        0.5, 0.13 / height,
        "dots: seeds; lines: 95 % intervals; colour: p < 0.05 after Holm; squares: other images",
        color=theme.muted, fontsize=8, ha="center")
    drawing.text(0.02, 1 - 0.13 / height, "\n".join(heading), color=theme.text, fontsize=10.5,
                 weight="bold", va="top", linespacing=1.4, parse_math=False)
    return drawing


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _mean(value: Estimate | None, form: Format) -> str:
    if value is None:
        return "-"
    scale, digits = (100, ".2f") if form.is_fraction else (1, ".4g")
    sd = "" if value.sd is None else f" ± {scale * value.sd:{digits}}"
    return f"{scale * value.mean:{digits}}{sd}"


def _difference(result: VariantResult, form: Format) -> str:
    difference = result.difference
    if difference is None:
        return "-"
    scale, digits = (100, "+.2f") if form.is_fraction else (1, "+.4g")
    interval = "" if difference.low is None else (
        f" [{scale * difference.low:{digits}}, {scale * difference.high:{digits}}]")
    pairs = (f", {difference.n} pair{'s' * (difference.n != 1)}"
             if _has_unpaired_seeds(result) else "")
    return f"{scale * difference.mean:{digits}}{interval}{pairs}"


def _has_unpaired_seeds(result: VariantResult) -> bool:
    """Returns whether the base lacks a seed of a paired variant."""
    return (result.is_paired and result.difference is not None
            and result.difference.n != result.estimate.n)


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
