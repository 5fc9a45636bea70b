"""The report of a study: a table for the terminal, Markdown, CSV and JSON files, and a figure."""

import csv
import dataclasses
import functools
import io
import json
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from flaxdigits.metrics import Format
from flaxdigits.plurals import counted
from flaxdigits.reports.effects import EffectsReport
from flaxdigits.reports.estimates import (
    POINTS,
    cell,
    format_mean,
    format_mean_difference,
    format_p_value,
    heading,
    metric_words,
)
from flaxdigits.reports.figures import LIGHT, Theme, png
from flaxdigits.reports.forest import ForestRow, forest
from flaxdigits.reports.markdown import table_line
from flaxdigits.studies.ablation import VariantResult, as_json
from flaxdigits.studies.grid import Grid, effects_json
from flaxdigits.studies.statistics import MIN_SD


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """The report of a study.

    Attributes:
      title: the title of the study.
      metric: the metric of `result.json` that is compared.
      formats: the format of every metric by its name without the split.
      about: what is needed to repeat the study, by name.
      variants: the results of the variants, the base first.
      grid: the grid of the study, which has no factors if there are only variants.
    """

    title: str
    metric: str
    formats: Mapping[str, Format]
    about: Mapping[str, str]
    variants: Sequence[VariantResult]
    grid: Grid = dataclasses.field(default_factory=lambda: Grid({}, {}))

    def format_of(self, name: str) -> Format:
        """Returns the format of a metric of `result.json`, such as `test_accuracy`."""
        return self.formats[name.partition("_")[2]]

    def files(self) -> dict[str, bytes]:
        """Returns the files by name; those of the effects only if there are any."""
        files = {
            "study.md": self.markdown().encode(), "study.csv": self.csv().encode(),
            "study.json": (json.dumps(self.json(), indent=2, ensure_ascii=False) + "\n").encode(),
            "study.png": png(differences(
                self.variants, self.metric, self.format_of(self.metric), self.title, self.grid))}
        if self._effects.effects:
            files |= {"study.effects.csv": self._effects.csv().encode(),
                      "study.effects.png": png(self._effects.figure(self.title))}
        return files

    def tables(self) -> list[tuple[Table, list[str]]]:
        """Returns the tables for a terminal, each with the lines of its notes."""
        tables = [(self._variants_table(), self.notes())]
        if self._effects.effects:
            tables.append((self._effects.terminal(), self._effects.notes()))
        return tables

    @functools.cached_property
    def _effects(self) -> EffectsReport:
        return EffectsReport(self.grid, self.variants, self.metric, self.format_of(self.metric))

    def _variants_table(self) -> Table:
        table = Table(title=Text(self.title, "table.title"))
        for column, name in enumerate(self._header()):
            table.add_column(Text(name), justify="right" if column else "left")
        for result in self.variants:
            table.add_row(*map(cell, self._cells(result)))
        return table

    def markdown(self) -> str:
        """Returns the table in Markdown, with notes and what is needed to repeat the study."""
        header = self._header()
        lines = [f"# {self.title}", "", table_line(header),
                 "| --- |" + " ---: |" * (len(header) - 1)]
        lines += [table_line(self._cells(result)) for result in self.variants]
        lines += ["", *self.notes(), ""]
        images = [f"![{metric_words(self.metric)}: difference of each variant from the base]"
                  "(study.png)", ""]
        if self._effects.effects:
            lines += [*self._effects.markdown(), ""]
            images += [f"![{metric_words(self.metric)}: main effects and interactions of the grid]"
                       "(study.effects.png)", ""]
        lines += [f"- {name}: {text}" for name, text in self.about.items()]
        return "\n".join([*lines, "", *images])

    def notes(self) -> list[str]:
        """Returns the notes below the table, as lines."""
        tests = sum(result.p_holm is not None for result in self.variants)
        unit = f" in {POINTS}" if self.format_of(self.metric).is_fraction else ""
        lines = ["Means ± standard deviations over n seeds. "
                 f"Difference from the base{unit} with its 95 % interval."]
        if all(result.estimate is None or result.estimate.n == 1 for result in self.variants):
            lines = [f"One seed, without intervals. Difference from the base{unit}."]
        if tests:
            lines.append("p: paired t-test over the same seeds; Holm: corrected for "
                         f"{counted(tests, 'test')}.")
        if any(map(_has_unpaired_seeds, self.variants)):
            lines.append("If the base diverged with a seed, the difference and its test are "
                        "computed over the remaining pairs.")
        if not all(result.is_paired for result in self.variants):
            lines.append("If a variant is evaluated on other images than the base, the interval is "
                        "Welch's and there is no test.")
        lines += _suspicions(self.variants, metric_words(self.metric))
        return lines if self._effects.effects else [*lines, *self._effects.missing()]

    def json(self) -> dict[str, object]:
        """Returns the report as JSON values, with unrounded numbers and the values of all seeds."""
        return {"title": self.title, "metric": self.metric, "about": dict(self.about),
                "rows": as_json(self.variants), "effects": effects_json(self._effects.effects),
                "missing": list(self._effects.missing())}

    def csv(self) -> str:
        """Returns the CSV file: a line per variant, not rounded, with fractions, not percent."""
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
        metric, *others = (heading(name, self.format_of(name))
                           for name in (self.metric, *self._extra_metrics()))
        return ["variant", "n", metric, "difference", "p", "p, Holm", *others]

    def _cells(self, result: VariantResult) -> list[str]:
        value, form = result.estimate, self.format_of(self.metric)
        text = format_mean(value, form)
        if result.diverged:
            text += f" ({len(result.diverged)} diverged)"
        p = result.difference.p if result.difference else None
        return [self.grid.label(result.variant), str(value.n if value else 0), text,
                format_mean_difference(result.difference, form) + _pairs(result),
                format_p_value(p), format_p_value(result.p_holm),
                *(format_mean(result.extra_metrics.get(name), self.format_of(name))
                  for name in self._extra_metrics())]

    def _extra_metrics(self) -> list[str]:
        return list(self.variants[0].extra_metrics)


def differences(
    variants: Sequence[VariantResult], metric: str, form: Format, title: str, grid: Grid,
    theme: Theme = LIGHT,
) -> Figure:
    """Draws the difference of each variant from the base: its 95 % interval, and a dot per seed.

    Args:
      variants: the results of the variants, the base first.
      metric: the name of the compared metric.
      form: the format of the metric.
      title: the title of the figure.
      grid: the grid of the study.
      theme: the colors.
    """
    base, *others = variants
    unit = POINTS if form.is_fraction else "difference"
    rows = [ForestRow(
        grid.label(base.variant), format_mean(base.estimate, form), None,
        [value - base.estimate.mean for value in base.values.values()])]
    for result in others:
        paired = [seed for seed in result.values if seed in base.values and result.is_paired]
        rows.append(ForestRow(
            result.variant, format_mean(result.estimate, form) if result.estimate else "diverged",
            result.difference, [result.values[seed] - base.values[seed] for seed in paired],
            result.p_holm, result.is_paired))
    return forest(
        rows, title, f"{metric_words(metric)}, {unit} from the base",
        "mean ± sd" + (", %" if form.is_fraction else ""), scale=100 if form.is_fraction else 1,
        higher_is_better=form.higher_is_better, theme=theme)


def _suspicions(variants: Sequence[VariantResult], metric: str) -> Iterator[str]:
    """Yields lines on variants whose difference from the base is the same for every seed."""
    base, *others = variants
    zero, constant = [], []
    for other in others:
        found = [value - base.values[seed] for seed, value in other.values.items()
                 if other.is_paired and seed in base.values]
        if found and max(map(abs, found)) <= MIN_SD:
            zero.append(other.variant)
        elif len(found) > 1 and max(found) - min(found) <= MIN_SD:
            constant.append(other.variant)
    if zero:
        yield (f"Same {metric} as the base with every seed: {'; '.join(zero)}. What is varied may "
               "have no effect on this metric.")
    if constant:
        yield (f"Same difference from the base with every seed: {'; '.join(constant)}. The seed "
               "may have no effect.")


def _pairs(result: VariantResult) -> str:
    """Returns the number of pairs if it differs from the number of the variant's seeds."""
    return f", {counted(result.difference.n, 'pair')}" if _has_unpaired_seeds(result) else ""


def _has_unpaired_seeds(result: VariantResult) -> bool:
    """Returns whether the base lacks a seed of a paired variant."""
    return (result.is_paired and result.difference is not None
            and result.difference.n != result.estimate.n)
