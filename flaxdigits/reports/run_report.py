"""Creates the report of a finished run: its figures as PNG files, and an HTML page."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from flaxdigits import metrics
from flaxdigits.reports.figures import DARK, LIGHT, Theme, confusion, curves, first_layer, png
from flaxdigits.reports.fonts import drawable_labels
from flaxdigits.reports.image_grids import (
    most_confident_errors,
    prediction_grid,
    sample_positions,
    select_predictions,
)
from flaxdigits.reports.layers import Layer
from flaxdigits.reports.norm_curves import has_norms, norm_curves
from flaxdigits.reports.page import page


@dataclasses.dataclass(frozen=True)
class RunReport:
    """The report of a run, from plain values and NumPy arrays.

    Attributes:
      result: the content of `result.json`.
      config: the resolved config, nested.
      about: the other fields of `config.json`, nested.
      rows: the rows of `metrics.jsonl`.
      layers: the layers of the network.
      class_names: the names of the classes in the order of the labels.
      split: the split whose predictions are reported.
      images: [all examples, height, width, channels] uint8, the images of the complete data set.
      index: [examples] int, the indices of the split's examples in the data set.
      labels: [examples] int.
      logits: [examples, classes] float32.
      filters: [filters, height, width] float32, the filters of the first layer; None if the first
        layer has no filters that can be drawn.
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
        """Returns the files by name: `figures/<figure>.png` and `report.html`."""
        names = drawable_labels(self.class_names)
        counts = metrics.confusion(self.logits, self.labels)
        arrays = self.images, self.index, self.labels, self.logits
        errors = select_predictions(*arrays, most_confident_errors(self.labels, self.logits))
        sampled = select_predictions(*arrays, sample_positions(len(self.labels)))
        figures: dict[str, Callable[[Theme], Figure]] = {
            "loss": lambda theme: curves(self.rows, self.result, "loss", theme),
            "error": lambda theme: curves(self.rows, self.result, "error", theme),
            "confusion": lambda theme: confusion(counts, names, theme)}
        if has_norms(self.rows):
            figures["norms"] = lambda theme: norm_curves(self.rows, self.result, theme)
        filters = self.filters
        if filters is not None:
            figures["filters"] = lambda theme: first_layer(filters, theme)
        themed = {name: (png(draw(LIGHT)), png(draw(DARK))) for name, draw in figures.items()}
        num_errors = int(counts.sum() - np.trace(counts))
        error_count = f"{num_errors} of {len(self.labels):,} are wrong"
        grids = {
            "mistakes": prediction_grid(
                errors, names,
                f"The most confident errors of the {self.split} split: {error_count}"),
            "samples": prediction_grid(sampled, names, f"Samples of the {self.split} split")}
        pngs = {name: light for name, (light, _) in themed.items()} | {
            name: png(figure) for name, figure in grids.items()}
        html = page(
            result=self.result, config=self.config, about=self.about, layers=self.layers,
            class_names=self.class_names, split=self.split, confusion=counts, errors=errors,
            samples=sampled, figures=themed)
        return {f"figures/{name}.png": file for name, file in pngs.items()} | {
            "report.html": html.encode()}
