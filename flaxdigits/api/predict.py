"""What a run's network reads in image files."""

import dataclasses
import os
from collections.abc import Sequence

from rich.jupyter import JupyterMixin
from rich.table import Table

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.context import check_devices
from flaxdigits.api.experiment import recorded_experiment
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.predict import Reading, read_images
from flaxdigits.evaluation.trained import load_network
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.patterns import expand_user, find_paths
from flaxdigits.reports.readings import reading_table
from flaxdigits.training.run_folder import RunFolder, readable_os_errors


@dataclasses.dataclass(frozen=True)
class Readings(JupyterMixin):
    """What was read; a table in a notebook, or for rich's `print`.

    Attributes:
      readings: of each file, in order; where one could not be read, with its `error`.
    """

    readings: list[Reading]

    def __rich__(self) -> Table:
        return reading_table(self.readings)


@pinned_settings()
def predict(
    workdir: PathLike, images: PathLike | Sequence[PathLike], checkpoint: str | int = "last", *,
    experiment: PathLike | None = None, figure: PathLike | None = None,
) -> Readings:
    """Reads one character in each image: photo, scan or drawing, of any size and colours.

    Args:
      workdir: the run folder.
      images: paths or patterns such as `scans/*.png`, one or several.
      checkpoint: `last`, `best` (by validation accuracy) or a step.
      experiment: the file of the run's architecture, if it is one of your own.
      figure: a PNG file that is to show each image and what the network saw of it.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint, no file matches, or the figure cannot
        be written.
    """
    folder = RunFolder(expand_user(workdir))
    folder.data()
    files = _find([images] if isinstance(images, str | os.PathLike) else images)
    sheet = None if figure is None else expand_user(figure)
    if sheet is not None:
        with readable_os_errors(sheet):
            sheet.parent.mkdir(parents=True, exist_ok=True)
        RunFolder(sheet.parent).check_writable()
    config = recorded_experiment(workdir, experiment=experiment)
    check_devices()
    network = load_network(folder, config, str(checkpoint))
    readings = read_images(network, files)
    if sheet is not None:
        from flaxdigits.reports.figures import png
        from flaxdigits.reports.readings import reading_sheet

        RunFolder(sheet.parent).write(sheet.name, png(reading_sheet(readings, network.class_names)))
    return Readings(readings)


def _find(patterns: Sequence[PathLike]) -> list[str]:
    """The files that the patterns match, each once: sorted within a pattern.

    A pattern without a match counts as a file, which will not be there.

    Raises:
      FlaxdigitsError: if there is no pattern, or none matches.
    """
    if not patterns:
        raise FlaxdigitsError("--mode=predict needs images: --images=photo.jpg, or "
                              "--images='scans/*.png'; repeatable")
    named = [str(expand_user(pattern)) for pattern in patterns]
    found: dict[str, None] = {}
    for pattern in named:
        found |= dict.fromkeys(find_paths(pattern) or [pattern])
    if not any(map(os.path.exists, found)):
        raise FlaxdigitsError(f"--images: no file matches {', '.join(named)}")
    return list(found)
