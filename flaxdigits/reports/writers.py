"""Which writers (or folds) and which classes fail: tables and figures of all folds."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy.special import softmax

from flaxdigits.reports.figures import LIGHT, Theme, blank, png
from flaxdigits.reports.fonts import Labels, legible
from flaxdigits.reports.sheets import COLUMNS, prediction_sheet, predictions
from flaxdigits.studies.folds import FoldPredictions
from flaxdigits.studies.statistics import estimate

HARDEST = 10  # writers in the table
SHOWN = 4  # writers whose images are shown


@dataclasses.dataclass(frozen=True)
class WritersReport:
    """What the folds are reported from.

    Attributes:
      title: one line.
      about: what a reader must know to repeat it, by name.
      tested: the predictions of all folds.
      images: [all, height, width, channels] uint8, of the data set.
    """

    title: str
    about: Mapping[str, str]
    tested: FoldPredictions
    images: np.ndarray

    @property
    def stem(self) -> str:
        """The name of the files without suffix: `writers` or `folds`."""
        return f"{self.tested.group_name}s"

    def files(self) -> dict[str, bytes]:
        """Returns the files by their names."""
        names, stem = legible(self.tested.class_names), self.stem
        writers, errors, examples = self.tested.errors()
        return {
            f"{stem}.md": self.markdown().encode(), f"{stem}.csv": self.csv().encode(),
            f"{stem}.json": (json.dumps(self.json(), indent=2, ensure_ascii=False) + "\n").encode(),
            f"{stem}.png": png(
                error_map(writers, errors, examples, names, self.tested.group_name)),
            f"hardest_{stem}.png": png(self.hardest(names))}

    def markdown(self) -> str:
        """The tables."""
        tested, names, group = self.tested, self.tested.class_names, self.tested.group_name
        writers, errors, examples = tested.errors()
        rates = 1 - errors.sum(1) / examples.sum(1)
        rate, wrong = estimate(list(rates)), int(errors.sum())
        lines = [
            f"# {self.title}", "",
            f"{100 * rate.mean:.2f} % of the images of a {group} that the network never saw: mean "
            f"over {rate.n} {group}s, 95 % interval {100 * max(0, rate.low):.2f} to "
            f"{100 * min(1, rate.high):.2f}, "
            f"standard deviation {100 * rate.sd:.2f}; {wrong:,} errors in {examples.sum():,}. "
            f"The best {group} has {100 * rates.max():.2f} %, the median "
            f"{100 * np.median(rates):.2f}, the worst {100 * rates.min():.2f}; the worst tenth of "
            f"the {group}s makes {errors[:max(1, len(writers) // 10)].sum() / max(1, wrong):.0%} "
            "of the errors.", "",
            f"| {group} | accuracy, % | errors | most often |", "| --- | ---: | ---: | --- |"]
        for writer, own, count in list(zip(writers, errors, examples, strict=True))[:HARDEST]:
            lines.append(f"| {writer} | {100 * (1 - own.sum() / count.sum()):.2f} | {own.sum()} of "
                         f"{count.sum()} | {self._confusions(int(writer))} |")
        lines += ["", f"| character | accuracy, % | errors | {group}s with errors | predicted as |",
                  "| --- | ---: | ---: | ---: | --- |"]
        by_class, of_class = errors.sum(0), examples.sum(0)
        confusions = tested.confusions()
        for label in np.argsort(-by_class / of_class, kind="stable"):
            taken = [f"{names[guess]} ({count})" for true, guess, count in confusions
                     if true == label][:3]
            lines.append(
                f"| {names[label]} | {100 * (1 - by_class[label] / of_class[label]):.2f} | "
                f"{by_class[label]} of {of_class[label]} | {(errors[:, label] > 0).sum()} | "
                f"{', '.join(taken) or '-'} |")
        lines += ["", *(f"- {name}: {text}" for name, text in self.about.items()), "",
                  f"![errors by {group} and character]({self.stem}.png)", "",
                  f"![mistakes of the hardest {group}s](hardest_{self.stem}.png)", ""]
        return "\n".join(lines)

    def csv(self) -> str:
        """A line for each writer and class, and of each writer over all."""
        file = io.StringIO()
        out = csv.writer(file, lineterminator="\n")
        out.writerow([self.tested.group_name, "character", "errors", "examples"])
        for writer, errors, examples in zip(*self.tested.errors(), strict=True):
            out.writerow([writer, "all", errors.sum(), examples.sum()])
            for name, wrong, count in zip(
                    self.tested.class_names, errors, examples, strict=True):
                out.writerow([writer, name, wrong, count])
        return file.getvalue()

    def json(self) -> dict[str, object]:
        """The accuracies of each writer and each class, and the mean over writers."""
        writers, errors, examples = self.tested.errors()
        rates = 1 - errors.sum(1) / examples.sum(1)
        classes = 1 - errors.sum(0) / examples.sum(0)
        return {
            "title": self.title, "about": dict(self.about), "seeds": self.tested.seeds,
            "accuracy": dataclasses.asdict(estimate(list(rates))),
            self.stem: {str(writer): float(rate)
                        for writer, rate in zip(writers, rates, strict=True)},
            "characters": dict(zip(self.tested.class_names, map(float, classes), strict=True))}

    def hardest(self, names: Labels) -> Figure:
        """Worst mistakes of the writers with the most errors, a line each."""
        tested = self.tested
        writers = [int(writer) for writer in tested.errors()[0][:SHOWN]]
        wrong = tested.predicted != tested.labels
        confidence = softmax(tested.logits.astype(np.float64), -1).max(-1)
        chosen: list[int] = []
        for writer in writers:  # mistakes first, the most confident first, each image once
            own = np.flatnonzero(tested.groups == writer)
            own = own[np.lexsort((-confidence[own], ~wrong[own]))]
            _, first = np.unique(tested.index[own], return_index=True)
            chosen += list(own[np.sort(first)][:COLUMNS])
        shown = predictions(self.images, tested.index, tested.labels, tested.logits, chosen)
        return prediction_sheet(
            shown, names,
            f"The hardest {self.stem}, a line each: " + ", ".join(map(str, writers)))

    def _confusions(self, writer: int) -> str:
        names = self.tested.class_names
        return ", ".join(f"{names[true]} as {names[guess]} ({count})"
                         for true, guess, count in self.tested.confusions(writer)[:3])


def error_map(
    writers: np.ndarray, errors: np.ndarray, examples: np.ndarray, names: Labels, group: str,
    theme: Theme = LIGHT,
) -> Figure:
    """The share of errors of each writer (a column) and class (a row), with that of each above.

    Args:
      writers: [writers] int, in the order of the columns.
      errors: [writers, classes] int.
      examples: [writers, classes] int.
      names: of the classes.
      group: what a column is: "writer" or "fold".
      theme: colours.
    """
    count, classes = errors.shape
    width, height = 10.0, 1.9 + 0.24 * classes
    figure, top = blank(width, height, theme)
    left, wide = 0.075, 0.83
    bottom, tall = 0.42 / height, 0.24 * classes / height
    top.set_position((left, bottom + tall + 0.08 / height, wide, 0.85 / height))
    rates = errors.sum(1) / np.maximum(1, examples.sum(1))
    top.bar(range(count), 100 * rates, width=0.8, color=theme.wrong)
    top.set_xlim(-0.5, count - 0.5)
    top.set_xticks([])
    top.grid(axis="y", color=theme.line, linewidth=0.8)
    top.set_axisbelow(True)
    top.set_title(f"Errors of each {group} and character, per cent", loc="left", color=theme.text,
                  fontsize=10.5, weight="bold")
    axes = figure.add_axes((left, bottom, wide, tall))
    shade = LinearSegmentedColormap.from_list("", [theme.background, theme.wrong])
    share = errors / np.maximum(1, examples)
    axes.imshow(share.T, cmap=shade, vmin=0, vmax=max(0.01, share.max()), aspect="auto",
                interpolation="nearest")
    axes.set_yticks(range(classes), names.names, font=names.font, fontsize=9, color=theme.text,
                    parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(theme.line)
    axes.set_xlabel(f"{count} {group}s, the hardest first: {', '.join(map(str, writers[:8]))} …"
                    if count > 8 else ", ".join(map(str, writers)), color=theme.muted, fontsize=8.5)
    by_class = errors.sum(0) / np.maximum(1, examples.sum(0))
    for row, rate in enumerate(by_class):
        axes.annotate(f"{rate:.1%}", (count - 0.5, row), (6, 0), textcoords="offset points",
                      va="center", fontsize=8, color=theme.muted, annotation_clip=False)
    return figure
