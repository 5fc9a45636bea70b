"""Renders `report.html`, the page of a run, from the template `page.html`."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from flaxdigits.config import flatten
from flaxdigits.datasets import SPLITS
from flaxdigits.plurals import counted
from flaxdigits.reports.image_grids import Prediction
from flaxdigits.reports.layers import CAPTION, Layer, format_bytes
from flaxdigits.reports.result import data_name
from flaxdigits.reports.template import data_url, render, themed

MAX_TILE_SIZE = 128  # pixels
MAX_CONFUSIONS = 12


def page(
    *, result: Mapping[str, Any], config: Mapping[str, Any], about: Mapping[str, Any],
    layers: Sequence[Layer], class_names: Sequence[str], split: str, confusion: np.ndarray,
    errors: Sequence[Prediction], samples: Sequence[Prediction],
    figures: Mapping[str, tuple[bytes, bytes]],
) -> str:
    """Renders the page of a finished run.

    Args:
      result: the content of `result.json`.
      config: the resolved config, nested.
      about: the other fields of `config.json`, nested.
      layers: the layers of the network.
      class_names: the names of the classes in the order of the labels.
      split: the split that confusion matrix, errors and samples are of.
      confusion: [classes, classes] int, rows are true classes.
      errors: the wrong predictions to show, the most confident first.
      samples: the predictions to show.
      figures: the PNG files of `loss`, `error`, `confusion` and optionally `norms` and `filters`,
        each for a light and for a dark page.
    """
    folder, seconds = config.get("data", {}).get("folder"), result["seconds_training"]
    return render(
        "page.html", experiment=result["experiment"],
        subtitle=f"{data_name(result['dataset'], result['data_source'], folder)}, split "
                 f"{result['split']}, seed {result['seed']}, {result['parameters']:,} parameters",
        training=f"{counted(result['epochs'], 'epoch')}, {counted(result['steps'], 'step')} in "
                 f"{seconds:,.{int(seconds < 10)}f} s on {result['device']}. Evaluated at the "
                 f"checkpoint of step {result['checkpoint_step']:,} ({result['checkpoint']}).",
        is_synthetic=result["data_source"] != "real",
        scores=[_score(result, name) for name in reversed(SPLITS)
                if result[f"{name}_examples"] is not None],
        split=split, examples=f"{result[f'{split}_examples']:,}",
        figures=themed(figures),
        confusions=_confusions(confusion, class_names),
        errors=[_tile(prediction, class_names) for prediction in errors],
        samples=[_tile(prediction, class_names) for prediction in samples],
        costs=CAPTION, layers=[_row(layer) for layer in layers], layers_total=_total(layers),
        result=_facts(result), config=_facts(config), about=_facts(about))


def _score(result: Mapping[str, Any], split: str) -> dict[str, str]:
    return {"split": split, "accuracy": f"{result[f'{split}_accuracy']:.2%}",
            "errors": f"{counted(result[f'{split}_errors'], 'error')} in "
                      f"{result[f'{split}_examples']:,}",
            "loss": f"{result[f'{split}_loss']:.4f}"}


def _confusions(counts: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the most frequently confused classes."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    pairs = [tuple(map(int, np.unravel_index(position, counts.shape))) for position in order]
    return [{"true": class_names[true], "predicted": class_names[predicted],
             "count": int(wrong[true, predicted]),
             "share": f"{wrong[true, predicted] / counts[true].sum():.1%}"}
            for true, predicted in pairs if wrong[true, predicted]]


def _tile(prediction: Prediction, class_names: Sequence[str]) -> dict[str, Any]:
    image, file = Image.fromarray(prediction.image), io.BytesIO()
    image.thumbnail((MAX_TILE_SIZE, MAX_TILE_SIZE))
    image.save(file, format="PNG", optimize=True)
    return {"image": data_url(file.getvalue()), "index": prediction.index,
            "true": class_names[prediction.true], "predicted": class_names[prediction.predicted],
            "confidence": f"{prediction.confidence:.1%}",
            "is_correct": prediction.true == prediction.predicted}


def _row(layer: Layer) -> tuple[str, ...]:
    shape = " × ".join(map(str, layer.output_shape))
    return (layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.flops:,}",
            format_bytes(layer.activation_bytes))


def _total(layers: Sequence[Layer]) -> tuple[str, ...]:
    return ("Total", "", "", f"{sum(layer.parameters for layer in layers):,}",
            f"{sum(layer.flops for layer in layers):,}",
            format_bytes(sum(layer.activation_bytes for layer in layers)))


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(str, value)) or "none"
        return "none" if value is None else str(value)

    return [(name, text(value)) for name, value in flatten(values).items()]
