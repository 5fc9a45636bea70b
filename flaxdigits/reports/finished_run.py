"""The report of a complete run, from its folder and its evaluated state."""

import logging
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxdigits.config import ExperimentConfig, to_dict
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.reports.layers import Layer, list_layers
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.parallel import first_line, is_writer
from flaxdigits.training.predictions import predictions_file
from flaxdigits.training.results import FinishedRun
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.selection import checkpoint_reader

NOT_TRAINED_ON = ("test", "validation")  # the report is about the first of them that the data have

_log = logging.getLogger(__name__)


def write_report_or_warn(run: FinishedRun) -> dict[str, Path]:
    """Calls `write_report` in the writing process; if it fails, logs a warning.

    The run is complete even without a report.

    Returns:
      The paths of the figures by name; empty if the report was not written.
    """
    if not is_writer():
        return {}
    try:
        return write_report(run)
    except Exception as error:  # libraries raise many types, as on a full disk
        _log.warning("the report was not written: %s; the result is complete; to write the report, "
                     "use mode=report with workdir=%s", first_line(error), run.folder.path)
        return {}


def write_report(run: FinishedRun) -> dict[str, Path]:
    """Writes `figures/` and `report.html`.

    Returns:
      The paths of the figures by name.
    """
    from flaxdigits.reports.run_report import RunReport  # importing matplotlib is slow

    experiment, folder, dataset = run.experiment, run.folder, run.experiment.dataset
    split = next(name for name in NOT_TRAINED_ON if name in run.predictions)
    predictions = run.predictions[split]
    layers = list_layers(experiment.task.model, experiment.image_shape)
    files = RunReport(
        result=run.result, config=to_dict(experiment.config), about=folder.metadata(),
        rows=folder.rows("metrics.jsonl"), layers=layers, class_names=dataset.class_names,
        split=split, images=dataset.images, index=predictions.index, labels=predictions.labels,
        logits=predictions.logits,
        filters=_first_filters(
            run.state.variables()["params"], layers, experiment.image_shape),
    ).files()
    for name, content in files.items():
        folder.write(name, content)
    return {Path(name).stem: folder.path / name for name in files if name.endswith(".png")}


def report_finished(
    config: ExperimentConfig, dataset: Dataset, folder: RunFolder | str | os.PathLike[str],
    progress: Progress = NO_PROGRESS,
) -> None:
    """Writes `predictions.npz` and the report of a finished run, from its checkpoint.

    Args:
      config: the config of the run.
      dataset: the data set that the run was trained on.
      folder: the folder of the run, or its path.
      progress: is notified of the evaluation and of the report.

    Raises:
      FlaxdigitsError: if the run is not finished, or its checkpoint cannot be read.
    """
    folder = RunFolder.of(folder)
    result = folder.result()
    if result is None:
        earlier = folder.recorded().get("extended_at")
        state = f"being extended from {earlier[-1]:,} steps" if earlier else "unfinished"
        raise FlaxdigitsError(
            f"{folder.path}: the run is {state}, at step {folder.newest_step():,}, and only a "
            f"finished run has a report: resume it with workdir={folder.path} and nothing else"
            + (f"; result.{earlier[-1]}.json contains the earlier result" if earlier else ""))
    experiment, step = Experiment.create(config, dataset), result["checkpoint_step"]
    with checkpoint_reader(folder) as checkpoints:
        if step not in checkpoints.steps():
            raise FlaxdigitsError(f"{folder.path}: the checkpoint of step {step}, which the "
                                  "result describes, no longer exists; without it, the report "
                                  "cannot be written")
        state = checkpoints.restore(step, experiment.state_shapes)
    predictions = {split: found for split in NOT_TRAINED_ON
                   if (found := experiment.predict(state, split, progress)) is not None}
    folder.write("predictions.npz", predictions_file(predictions, step, dataset))
    with progress.stage("writing the report"):
        write_report(FinishedRun(experiment, state, folder, result, predictions))


def _first_filters(
    params: Any, layers: list[Layer], image_shape: tuple[int, ...]
) -> np.ndarray | None:
    """Returns the filters of the first layer with weights: [filters, height, width] float32.

    They are the kernels of a convolution, or the columns of a dense layer of the whole image,
    averaged over the channels. None if the layer is of another kind.
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
