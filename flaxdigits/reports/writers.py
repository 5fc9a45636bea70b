"""The report of `--mode=folds`: errors by writer (or fold) and by character over all folds."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy.special import softmax

from flaxdigits.reports.figures import LIGHT, Theme, blank_figure, png
from flaxdigits.reports.fonts import Labels, drawable_labels
from flaxdigits.reports.image_grids import COLUMNS, prediction_grid, select_predictions
from flaxdigits.studies.folds import FoldPredictions
from flaxdigits.studies.statistics import estimate

GROUPS_IN_TABLE = 10
GROUPS_IN_FIGURE = 4
MAX_NAMED_GROUPS = 30  # columns of an error map; if there are more, only the first are named


@dataclasses.dataclass(frozen=True)
class WritersReport:
    """The report of all folds of writers, or of examples.

    Attributes:
      title: the title of the report.
      about: what is needed to repeat the runs, by name.
      predictions: the test predictions of all folds.
      images: [examples, height, width, channels] uint8, the images of the complete data set.
    """

    title: str
    about: Mapping[str, str]
    predictions: FoldPredictions
    images: np.ndarray

    @property
    def stem(self) -> str:
        """The name of the files without suffix: `writers` or `folds`."""
        return f"{self.predictions.group_name}s"

    def files(self) -> dict[str, bytes]:
        """Returns the files by name."""
        names, stem = drawable_labels(self.predictions.class_names), self.stem
        groups, errors, examples = self.predictions.errors()
        return {
            f"{stem}.md": self.markdown().encode(), f"{stem}.csv": self.csv().encode(),
            f"{stem}.json": (json.dumps(self.json(), indent=2, ensure_ascii=False) + "\n").encode(),
            f"{stem}.png": png(
                error_map(groups, errors, examples, names, self.predictions.group_name)),
            f"hardest_{stem}.png": png(self.hardest(names))}

    def markdown(self) -> str:
        """Returns the tables of writers (or folds) and characters in Markdown."""
        names, group = self.predictions.class_names, self.predictions.group_name
        groups, errors, examples = self.predictions.errors()
        rates = 1 - errors.sum(1) / examples.sum(1)
        rate, wrong = estimate(list(rates)), int(errors.sum())
        assert rate.sd is not None and rate.low is not None and rate.high is not None  # n > 1
        lines = [
            f"# {self.title}", "",
            f"{100 * rate.mean:.2f} % accuracy on the images of {group}s that the network was not "
            f"trained on: mean over {rate.n} {group}s, "
            f"95 % interval {100 * max(0, rate.low):.2f} to "
            f"{100 * min(1, rate.high):.2f}, "
            f"standard deviation {100 * rate.sd:.2f}; {wrong:,} errors in {examples.sum():,}. "
            f"The best {group} has {100 * rates.max():.2f} %, the median "
            f"{100 * np.median(rates):.2f}, the worst {100 * rates.min():.2f}; the worst tenth of "
            f"the {group}s makes {errors[:max(1, len(groups) // 10)].sum() / max(1, wrong):.0%} "
            "of the errors.", "",
            f"| {group} | accuracy, % | errors | most frequent errors |",
            "| --- | ---: | ---: | --- |"]
        group_rows = list(zip(groups, errors, examples, strict=True))[:GROUPS_IN_TABLE]
        for label, wrong_by_class, count in group_rows:
            lines.append(f"| {label} | {100 * (1 - wrong_by_class.sum() / count.sum()):.2f} | "
                         f"{wrong_by_class.sum()} of {count.sum()} | "
                         f"{self._confusions(int(label))} |")
        lines += ["", f"| character | accuracy, % | errors | {group}s with errors | predicted as |",
                  "| --- | ---: | ---: | ---: | --- |"]
        class_errors, class_examples = errors.sum(0), examples.sum(0)
        confusions = self.predictions.confusions()
        for label in np.argsort(-class_errors / class_examples, kind="stable"):
            predicted = [f"{names[guess]} ({count})" for true, guess, count in confusions
                         if true == label][:3]
            lines.append(
                f"| {names[label]} | {100 * (1 - class_errors[label] / class_examples[label]):.2f} "
                f"| {class_errors[label]} of {class_examples[label]} | "
                f"{(errors[:, label] > 0).sum()} | {', '.join(predicted) or '-'} |")
        lines += ["", *(f"- {name}: {text}" for name, text in self.about.items()), "",
                  f"![errors by {group} and character]({self.stem}.png)", "",
                  f"![most confident errors of the hardest {group}s](hardest_{self.stem}.png)", ""]
        return "\n".join(lines)

    def csv(self) -> str:
        """Returns the CSV file: a line for each group and class, and the total of each group."""
        file = io.StringIO()
        out = csv.writer(file, lineterminator="\n")
        out.writerow([self.predictions.group_name, "character", "errors", "examples"])
        for group, errors, examples in zip(*self.predictions.errors(), strict=True):
            out.writerow([group, "all", errors.sum(), examples.sum()])
            for name, wrong, count in zip(
                    self.predictions.class_names, errors, examples, strict=True):
                out.writerow([group, name, wrong, count])
        return file.getvalue()

    def json(self) -> dict[str, object]:
        """Returns the accuracy of each group and class, and the mean over groups."""
        groups, errors, examples = self.predictions.errors()
        rates = 1 - errors.sum(1) / examples.sum(1)
        classes = 1 - errors.sum(0) / examples.sum(0)
        return {
            "title": self.title, "about": dict(self.about), "seeds": self.predictions.seeds,
            "accuracy": dataclasses.asdict(estimate(list(rates))),
            self.stem: {str(group): float(rate)
                        for group, rate in zip(groups, rates, strict=True)},
            "characters": dict(zip(self.predictions.class_names, map(float, classes), strict=True))}

    def hardest(self, names: Labels) -> Figure:
        """Draws a row for each group with the highest error rates: its most confident errors.

        Args:
          names: the names of the classes.
        """
        predictions = self.predictions
        groups = [int(group) for group in predictions.errors()[0][:GROUPS_IN_FIGURE]]
        wrong = predictions.predicted != predictions.labels
        confidence = softmax(predictions.logits.astype(np.float64), -1).max(-1)
        chosen: list[int] = []
        for group in groups:  # errors first, the most confident first, each image once
            rows = np.flatnonzero(predictions.groups == group)
            rows = rows[np.lexsort((-confidence[rows], ~wrong[rows]))]
            _, first = np.unique(predictions.index[rows], return_index=True)
            chosen += list(rows[np.sort(first)][:COLUMNS])
        shown = select_predictions(
            self.images, predictions.index, predictions.labels, predictions.logits, chosen)
        return prediction_grid(
            shown, names,
            f"The hardest {self.stem}, a row each: {self.stem} " + ", ".join(map(str, groups)))

    def _confusions(self, group: int) -> str:
        names = self.predictions.class_names
        return ", ".join(f"{names[true]} as {names[guess]} ({count})"
                         for true, guess, count in self.predictions.confusions(group)[:3])


def error_map(
    groups: np.ndarray, errors: np.ndarray, examples: np.ndarray, names: Labels, group: str,
    theme: Theme = LIGHT,
) -> Figure:
    """Draws the error rate of each writer or fold (a column) and class (a row), and their totals.

    Args:
      groups: [groups] int, writers or folds, in the order of the columns.
      errors: [groups, classes] int, numbers of errors.
      examples: [groups, classes] int, numbers of examples.
      names: the names of the classes.
      group: what a column is: "writer" or "fold".
      theme: the colors.
    """
    count, classes = errors.shape
    width, height = 10.0, 1.98 + 0.24 * classes
    figure, top = blank_figure(width, height, theme)
    left, wide = 0.075, 0.83
    bottom, tall = 0.5 / height, 0.24 * classes / height
    top.set_position((left, bottom + tall + 0.08 / height, wide, 0.85 / height))
    rates = errors.sum(1) / np.maximum(1, examples.sum(1))
    top.bar(range(count), 100 * rates, width=0.8, color=theme.wrong)
    top.set_xlim(-0.5, count - 0.5)
    top.set_xticks([])
    top.grid(axis="y", color=theme.line, linewidth=0.8)
    top.set_axisbelow(True)
    axes = figure.add_axes((left, bottom, wide, tall))
    shade = LinearSegmentedColormap.from_list("", [theme.background, theme.wrong])
    share = errors / np.maximum(1, examples)
    top.set_title(f"Error rate of each {group} in percent, and below of each {group} and "
                  f"character (white 0 %, red {100 * share.max():.0f} %)", loc="left",
                  color=theme.text, fontsize=10.5, weight="bold")
    axes.imshow(share.T, cmap=shade, vmin=0, vmax=max(0.01, share.max()), aspect="auto",
                interpolation="nearest")
    axes.set_yticks(range(classes), names.names, font=names.font, fontsize=9, color=theme.text,
                    parse_math=False)
    axes.set_xticks(range(count), groups, fontsize=8, color=theme.muted)
    if count > MAX_NAMED_GROUPS:
        axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(theme.line)
    first = "" if count <= MAX_NAMED_GROUPS else f": {', '.join(map(str, groups[:8]))} …"
    axes.set_xlabel(f"{count} {group}s, the highest error rate first{first}", color=theme.muted,
                    fontsize=8.5)
    by_class = errors.sum(0) / np.maximum(1, examples.sum(0))
    for row, rate in enumerate(by_class):
        axes.annotate(f"{rate:.1%}", (count - 0.5, row), (6, 0), textcoords="offset points",
                      va="center", fontsize=8, color=theme.muted, annotation_clip=False)
    return figure
