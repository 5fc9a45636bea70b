"""The effects of a study's grid: a table (terminal, Markdown, CSV) and a figure."""

import csv
import dataclasses
import functools
import io
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from flaxdigits.metrics import Format
from flaxdigits.plurals import counted, listed
from flaxdigits.reports.estimates import (
    POINTS,
    cell,
    format_mean,
    format_mean_difference,
    format_p_value,
    heading,
    metric_words,
)
from flaxdigits.reports.figures import LIGHT, Theme
from flaxdigits.reports.forest import ForestRow, forest
from flaxdigits.reports.markdown import table_line
from flaxdigits.studies.ablation import VariantResult
from flaxdigits.studies.grid import Effect, Grid, GridEffects, grid_effects

TITLE = "Main effects and interactions of the grid"


@dataclasses.dataclass(frozen=True)
class EffectsReport:
    """The table and the figure of the effects of a grid.

    Attributes:
      grid: the grid.
      variants: the results of the variants of the study.
      metric: the metric of `result.json` that is compared.
      form: the format of the metric.
    """

    grid: Grid
    variants: Sequence[VariantResult]
    metric: str
    form: Format

    @property
    def effects(self) -> Sequence[Effect]:
        """The effects; empty if there are none, or none that can be computed."""
        return self._found.effects

    @functools.cached_property
    def _found(self) -> GridEffects:
        return grid_effects(self.grid, self.variants)

    def terminal(self) -> Table:
        """Returns the table for a terminal."""
        table = Table(title=Text(TITLE, "table.title"))
        for column, name in enumerate(self._header()):
            table.add_column(Text(name), justify="right" if column else "left")
        for effect in self.effects:
            table.add_row(*map(cell, self._cells(effect)))
        return table

    def markdown(self) -> list[str]:
        """Returns the lines of a section in Markdown, with notes."""
        header = self._header()
        return [f"## {TITLE}", "", table_line(header), "| --- |" + " ---: |" * (len(header) - 1),
                *(table_line(self._cells(effect)) for effect in self.effects), "", *self.notes()]

    def missing(self) -> Iterator[str]:
        """Yields lines on combinations that are missing, and on effects that are not computed."""
        if not self._found.is_paired:
            yield ("No main effects and interactions: the combinations of the grid are evaluated "
                   "on different images.")
        if not self._found.diverged:
            return
        yield "Diverged combinations: " + "; ".join(
            f"{self.grid.label(variant)} ({listed('seed', seeds)})"
            for variant, seeds in self._found.diverged.items()) + "."
        if not self.effects:
            yield ("Main effects and interactions therefore cannot be computed: they need two "
                   "levels of two factors whose combinations all finish with the same seed.")
        elif self._found.omitted:
            yield "The effects are therefore computed without " + " and ".join(
                _level(*omitted) for omitted in self._found.omitted) + "."

    def notes(self) -> list[str]:
        """Returns the notes below the table, as lines."""
        tests = sum(effect.p_holm is not None for effect in self.effects)
        unit = f" in {POINTS}" if self.form.is_fraction else ""
        seeds = counted(self.effects[0].estimate.n, "seed")
        combinations = "all these combinations" if self._found.omitted else "every combination"
        lines = [*self.missing(),
                 f"Means over all levels of the other factors, ± standard deviation over the "
                 f"{seeds} that finished for {combinations}.",
                 f"Effect of a level: its difference from the reference level of its factor{unit}"
                 ", with its 95 % interval.",
                 "Effect of a × b: the difference of a from its reference level if the other "
                 "factor has level b, minus the same difference if the other factor has its "
                 "reference level."]
        if tests:
            lines.append("p: paired t-test over the seeds; Holm: corrected for the "
                         f"{counted(tests, 'test')} of this table.")
        return lines

    def csv(self) -> str:
        """Returns the CSV file: a line per effect, not rounded, with fractions, not percent."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["factor", "level", "other_factor", "other_level", "n", "mean", "sd", "low",
                         "high", "effect", "effect_low", "effect_high", "p", "p_holm"])
        for effect in self.effects:
            named = [name for pair in zip(effect.factors, effect.levels, strict=True)
                     for name in pair]
            value, difference = effect.estimate, effect.difference
            writer.writerow([
                *named, *[None] * (4 - len(named)), value.n, value.mean, value.sd, value.low,
                value.high, *([difference.mean, difference.low, difference.high, difference.p]
                              if difference else [None] * 4), effect.p_holm])
        return file.getvalue()

    def figure(self, title: str, theme: Theme = LIGHT) -> Figure:
        """Draws the effects.

        Args:
          title: the title of the study.
          theme: the colors.
        """
        unit = f", {POINTS}" if self.form.is_fraction else ""
        return forest(
            [ForestRow(_label(effect), format_mean(effect.estimate, self.form), effect.difference,
                       list(effect.by_seed.values()), effect.p_holm,
                       is_rated=len(effect.factors) == 1) for effect in self.effects],
            f"{title}: main effects and interactions",
            f"effect on {metric_words(self.metric)}{unit}",
            "mean ± sd" + (", %" if self.form.is_fraction else ""),
            scale=100 if self.form.is_fraction else 1,
            higher_is_better=self.form.higher_is_better, notes=list(self.missing()), theme=theme)

    def _header(self) -> list[str]:
        return ["level, or a × b", "n", heading(self.metric, self.form), "effect", "p", "p, Holm"]

    def _cells(self, effect: Effect) -> list[str]:
        p = effect.difference.p if effect.difference else None
        return [_label(effect), str(effect.estimate.n), format_mean(effect.estimate, self.form),
                format_mean_difference(effect.difference, self.form), format_p_value(p),
                format_p_value(effect.p_holm)]


def _label(effect: Effect) -> str:
    """Returns the name of an effect, such as `loss: MSE (reference)`, or of two `MSE × Adam`."""
    if len(effect.factors) == 2:
        return " × ".join(effect.levels)
    (factor,), (level,) = effect.factors, effect.levels
    return _level(factor, level) + ("" if effect.difference else " (reference)")


def _level(factor: str, level: str) -> str:
    """Returns the name of a level with its factor, unless the name contains the factor."""
    is_named = not level.startswith(f"{factor.rpartition('.')[2]}=")
    return f"{factor}: {level}" if is_named else level
