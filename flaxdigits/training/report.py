"""The report of a finished run, from its folder and its reported weights."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxdigits.config import ExperimentConfig, to_dict
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.predictions import Predictions, predictions_file
from flaxdigits.reports.layers import Layer, list_layers
from flaxdigits.training.checkpoints import Checkpoints
from flaxdigits.training.identity import run_identity
from flaxdigits.training.parallel import first_line, is_writer
from flaxdigits.training.run import Run
from flaxdigits.training.run_folder import RunFolder

HELD_OUT = ("test", "validation")  # the first that there is, is reported on

_log = logging.getLogger(__name__)


def write_report_or_warn(
    run: Run, folder: RunFolder, result: Mapping[str, Any], predictions: Mapping[str, Predictions]
) -> dict[str, Path]:
    """`write_report`; where it fails, a note and no figures, since the result stands without."""
    if not is_writer():
        return {}
    try:
        return write_report(run, folder, result, predictions)
    except Exception as error:  # whatever a library makes of a full disk or an odd font
        _log.warning("the report was not written: %s; the result stands, and --mode=report "
                     "--workdir=%s tries again", first_line(error), folder.path)
        return {}


def write_report(
    run: Run, folder: RunFolder, result: Mapping[str, Any], predictions: Mapping[str, Predictions]
) -> dict[str, Path]:
    """Writes `predictions.npz`, `figures/` and `report.html`.

    Args:
      run: with the state that the result is about.
      folder: of the run.
      result: what its `result.json` holds, or will.
      predictions: of the splits that were not trained on.

    Returns:
      The paths of the figures by name.
    """
    from flaxdigits.reports.run_report import RunReport  # matplotlib takes its time to import

    split = next(name for name in HELD_OUT if name in predictions)
    held_out, dataset = predictions[split], run.dataset
    layers = list_layers(run.task.model, dataset.images.shape[1:])
    folder.write("predictions.npz",
                 predictions_file(predictions, result["checkpoint_step"], dataset))
    files = RunReport(
        result=result, config=to_dict(run.config), about=folder.about(),
        rows=folder.rows("metrics.jsonl"), layers=layers, class_names=dataset.class_names,
        split=split, images=dataset.images, index=held_out.index, labels=held_out.labels,
        logits=held_out.logits,
        filters=_first_filters(run.state.variables()["params"], layers, dataset.images.shape[1:]),
    ).files()
    for name, content in files.items():
        folder.write(name, content)
    return {Path(name).stem: folder.path / name for name in files if name.endswith(".png")}


def report_finished(
    config: ExperimentConfig, dataset: Dataset, folder: RunFolder | str | os.PathLike[str]
) -> None:
    """Writes the report of a run that ended earlier, from its reported checkpoint.

    Args:
      config: the run's own.
      dataset: the one that it was trained on.
      folder: of the run, or its path.

    Raises:
      FlaxdigitsError: if the run has not ended, or its checkpoint cannot be read.
    """
    folder = RunFolder.of(folder)
    result = folder.result()
    if result is None:
        raise FlaxdigitsError(
            f"{folder.path}: has no result.json yet: a report is about a run that has ended; "
            "the command that started it resumes it")
    run, step = Run(config, dataset), result["checkpoint_step"]
    checkpoints = Checkpoints(
        folder.checkpoints, access="read", run=run_identity(folder.recorded()))
    try:
        if step not in checkpoints.steps():
            raise FlaxdigitsError(f"{folder.path}: the checkpoint of step {step}, which the "
                                  "result is about, is not there any more")
        run.state = checkpoints.restore(step, run.state)
    finally:
        checkpoints.close()
    write_report(run, folder, result, {
        split: run.predict(split) for split in HELD_OUT if split in run.splits})


def _first_filters(
    params: Any, layers: list[Layer], image_shape: tuple[int, ...]
) -> np.ndarray | None:
    """The filters of the first layer with weights: [filters, height, width] float32.

    Of a convolution its kernels, of a dense layer over the whole image its columns; of both the
    mean over the channels. None where the layer is of another kind.
    """
    first = next((layer for layer in layers if layer.parameters), None)
    if first is None:
        return None
    for name in first.path:
        params = params[name]
    kernel = np.asarray(jax.device_get(params.get("kernel", 0.0)), np.float32)
    if kernel.ndim == 2 and len(kernel) == np.prod(image_shape):
        kernel = kernel.reshape(*image_shape, -1)
    return kernel.mean(axis=2).transpose(2, 0, 1) if kernel.ndim == 4 else None
