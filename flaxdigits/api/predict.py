"""Classifies image files with the network of a run."""

import dataclasses
import os
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.jupyter import JupyterMixin
from rich.table import Table

from flaxdigits.api.arguments import PathLike, path_text
from flaxdigits.api.console import make_console
from flaxdigits.api.load import load
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.predict import ImagePrediction, predict_images
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.patterns import expand_user, find_paths
from flaxdigits.reports.figures import png
from flaxdigits.reports.image_predictions import image_prediction_grid, image_prediction_table
from flaxdigits.training.progress import console_progress
from flaxdigits.training.run_folder import RunFolder, readable_os_errors


@dataclasses.dataclass(frozen=True)
class ImagePredictions(JupyterMixin):
    """The predictions for image files, shown as a table in a notebook or by rich's `print`.

    Attributes:
      predictions: the prediction for each file, in order; for a file that could not be read, only
        its `error`.
    """

    predictions: list[ImagePrediction]

    def __rich__(self) -> Table:
        return image_prediction_table(self.predictions)


@pinned_settings()
def predict(
    workdir: PathLike, images: PathLike | Sequence[PathLike], checkpoint: str | int = "last", *,
    experiment: PathLike | None = None, figure: PathLike | None = None,
    console: Console | None = None,
) -> ImagePredictions:
    """Classifies the character in each image: a photo, scan or drawing of any size and colors.

    Args:
      workdir: the run folder.
      images: paths or patterns such as `scans/*.png`, one or several.
      checkpoint: `last`, `best` (by validation accuracy) or a step.
      experiment: the experiment file of the run, if it has custom components and the file with
        which it was trained is gone or has changed.
      figure: the path of a PNG file to write, which shows each image with the input of the network.
      console: the console on which progress is printed; None: the terminal or notebook.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint, no file matches, or the figure cannot
        be written.
    """
    RunFolder(expand_user(path_text(workdir, "workdir"))).check_is_run()
    several = [images] if isinstance(images, str | os.PathLike) or not isinstance(
        images, Iterable) else images
    files = _find([path_text(pattern, "images") for pattern in several])
    figure_path = None if figure is None else expand_user(path_text(figure, "figure"))
    if figure_path is not None:
        with readable_os_errors(figure_path):
            figure_path.parent.mkdir(parents=True, exist_ok=True)
        RunFolder(figure_path.parent).check_writable()
    progress = console_progress(console or make_console())
    with progress.stage("loading the network"):
        network = load(workdir, checkpoint, experiment=experiment)
    predictions = predict_images(network, files, progress)
    if figure_path is not None:
        with progress.stage("drawing the images"):
            grid = image_prediction_grid(predictions, network.class_names)
            RunFolder(figure_path.parent).write(figure_path.name, png(grid))
    return ImagePredictions(predictions)


def _find(patterns: Sequence[PathLike]) -> list[str]:
    """Returns the files that match the patterns, each once, sorted within a pattern.

    A pattern without matches is included as a path, so that it is reported as a missing file.

    Raises:
      FlaxdigitsError: if there is no pattern, or none matches.
    """
    if not patterns:
        raise FlaxdigitsError("predict needs images: one or several files, or patterns such as "
                              "images='scans/*.png'")
    expanded = [str(expand_user(pattern)) for pattern in patterns]
    found: dict[str, None] = {}
    for pattern in expanded:
        found |= dict.fromkeys(find_paths(pattern) or [pattern])
    if not any(map(os.path.exists, found)):
        raise FlaxdigitsError(f"images: no file matches {', '.join(expanded)}")
    return list(found)
