"""The report of a finished run: its figures as PNG files and the page that holds them.

It is made of plain values and arrays, whatever computed them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from flaxdigits.reports.figures import (
    DARK,
    LIGHT,
    Theme,
    confusion,
    confusion_matrix,
    curves,
    first_layer,
    png,
)
from flaxdigits.reports.fonts import legible
from flaxdigits.reports.layers import Layer
from flaxdigits.reports.page import page
from flaxdigits.reports.sheets import prediction_sheet, predictions, samples, worst_mistakes


@dataclasses.dataclass(frozen=True)
class RunReport:
    """What a report is made of.

    Attributes:
      result: of `result.json`.
      config: the resolved config, nested.
      about: what else `config.json` tells, nested.
      rows: of `metrics.jsonl`.
      layers: of the network.
      class_names: in the order of the labels.
      split: which of the splits the rest is about.
      images: [all, height, width, channels] uint8, the whole data set.
      index: [examples] int, where the split's examples are in it.
      labels: [examples] int.
      logits: [examples, classes] float32.
      filters: [filters, height, width] float32 of the first layer, or None.
    """

    result: Mapping[str, Any]
    config: Mapping[str, Any]
    about: Mapping[str, Any]
    rows: Sequence[dict[str, Any]]
    layers: Sequence[Layer]
    class_names: Sequence[str]
    split: str
    images: np.ndarray
    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    filters: np.ndarray | None

    def files(self) -> dict[str, bytes]:
        """The files by name: `figures/<figure>.png` and `report.html`."""
        names = legible(self.class_names)
        counts = confusion_matrix(self.labels, self.logits.argmax(-1), len(self.class_names))
        split = self.images, self.index, self.labels, self.logits
        wrong = predictions(*split, worst_mistakes(self.labels, self.logits))
        some = predictions(*split, samples(len(self.labels)))
        drawn: dict[str, Callable[[Theme], Figure]] = {
            "loss": lambda theme: curves(self.rows, self.result, "loss", theme),
            "accuracy": lambda theme: curves(self.rows, self.result, "accuracy", theme),
            "confusion": lambda theme: confusion(counts, names, theme)}
        if self.filters is not None:
            drawn["filters"] = lambda theme: first_layer(self.filters, theme)
        both = {name: (png(draw(LIGHT)), png(draw(DARK))) for name, draw in drawn.items()}
        errors = int(counts.sum() - np.trace(counts))
        wrong_count = f"{errors} of {len(self.labels):,} are wrong"
        sheets = {
            "mistakes": prediction_sheet(
                wrong, names, f"The worst mistakes of the {self.split} split: {wrong_count}"),
            "samples": prediction_sheet(some, names, f"Samples of the {self.split} split")}
        pngs = {name: light for name, (light, _) in both.items()} | {
            name: png(figure) for name, figure in sheets.items()}
        html = page(
            result=self.result, config=self.config, about=self.about, layers=self.layers,
            class_names=self.class_names, split=self.split, confusion=counts, mistakes=wrong,
            samples=some, figures=both)
        return {f"figures/{name}.png": file for name, file in pngs.items()} | {
            "report.html": html.encode()}
