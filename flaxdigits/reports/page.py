"""`report.html`: one page with everything on it, from the template `page.html` beside this file."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from flaxdigits.config import flatten
from flaxdigits.reports.layers import COSTS, Layer, readable_bytes
from flaxdigits.reports.result import SPLITS
from flaxdigits.reports.sheets import Prediction
from flaxdigits.reports.template import address, render, themed

LARGEST_TILE = 128  # pixels
MOST_CONFUSIONS = 12


def page(
    *, result: Mapping[str, Any], config: Mapping[str, Any], about: Mapping[str, Any],
    layers: Sequence[Layer], class_names: Sequence[str], split: str, confusion: np.ndarray,
    mistakes: Sequence[Prediction], samples: Sequence[Prediction],
    figures: Mapping[str, tuple[bytes, bytes]],
) -> str:
    """The page of a finished run.

    Args:
      result: of `result.json`.
      config: the resolved config, nested.
      about: what else `config.json` tells, nested.
      layers: of the network.
      class_names: in the order of the labels.
      split: which of the splits the figures are about.
      confusion: [classes, classes] int, rows are true classes.
      mistakes: predictions to show, the worst first.
      samples: predictions to show.
      figures: PNG files of `loss`, `accuracy`, `confusion` and, if there are any, `filters`:
        each for a light and for a dark page.
    """
    return render(
        "page.html", experiment=result["experiment"],
        subtitle=f"{result['dataset']} ({result['data_source']}), split {result['split']}, seed "
                 f"{result['seed']}, {result['parameters']:,} parameters",
        training=f"{result['epochs']:g} epochs, {result['steps']:,} steps in "
                 f"{result['seconds_training']:,.0f} s on {result['device']}; the figures are "
                 f"about the checkpoint of step {result['checkpoint_step']:,} "
                 f"({result['checkpoint']}).",
        is_drawn=result["data_source"] == "drawn",
        scores=[_score(result, name) for name in reversed(SPLITS)
                if result[f"{name}_examples"] is not None],
        split=split, examples=f"{result[f'{split}_examples']:,}",
        figures=themed(figures),
        confusions=_confusions(confusion, class_names),
        mistakes=[_tile(one, class_names) for one in mistakes],
        samples=[_tile(one, class_names) for one in samples],
        costs=COSTS, layers=[_row(layer) for layer in layers], layers_total=_total(layers),
        result=_facts(result), config=_facts(config), about=_facts(about))


def _score(result: Mapping[str, Any], split: str) -> dict[str, str]:
    return {"split": split, "accuracy": f"{result[f'{split}_accuracy']:.2%}",
            "errors": f"{result[f'{split}_errors']:,} errors in {result[f'{split}_examples']:,}",
            "loss": f"{result[f'{split}_loss']:.4f}"}


def _confusions(counts: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent mistakes."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [tuple(map(int, np.unravel_index(place, counts.shape))) for place in order]
    return [{"true": class_names[true], "predicted": class_names[predicted],
             "count": int(wrong[true, predicted]),
             "share": f"{wrong[true, predicted] / counts[true].sum():.1%}"}
            for true, predicted in pairs if wrong[true, predicted]]


def _tile(one: Prediction, class_names: Sequence[str]) -> dict[str, Any]:
    image, file = Image.fromarray(one.image), io.BytesIO()
    image.thumbnail((LARGEST_TILE, LARGEST_TILE))
    image.save(file, format="PNG", optimize=True)
    return {"image": address(file.getvalue()), "row": one.row, "true": class_names[one.true],
            "predicted": class_names[one.predicted], "confidence": f"{one.confidence:.1%}",
            "is_right": one.true == one.predicted}


def _row(layer: Layer) -> tuple[str, ...]:
    shape = " × ".join(map(str, layer.output_shape))
    return (layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.flops:,}",
            readable_bytes(layer.activation_bytes))


def _total(layers: Sequence[Layer]) -> tuple[str, ...]:
    return ("Total", "", "", f"{sum(layer.parameters for layer in layers):,}",
            f"{sum(layer.flops for layer in layers):,}",
            readable_bytes(sum(layer.activation_bytes for layer in layers)))


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(str, value)) or "none"
        return "none" if value is None else str(value)

    return [(name, text(value)) for name, value in flatten(values).items()]
