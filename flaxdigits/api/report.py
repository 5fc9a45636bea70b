"""Writes the report of a finished run again."""

from pathlib import Path

from rich.console import Console

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.experiment import moved_data, open_run
from flaxdigits.api.session import Session
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.reports.finished_run import report_finished
from flaxdigits.reports.result import print_synthetic_data_notice


@pinned_settings()
def report(
    workdir: PathLike, *, experiment: PathLike | None = None,
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    data_folder: PathLike | None = None, data_indices: PathLike | None = None,
    console: Console | None = None,
) -> Path:
    """Writes `predictions.npz`, the figures and `report.html` of a finished run again.

    Args:
      workdir: the run folder.
      experiment: the experiment file of the run, if it has custom components and the file with
        which it was trained is gone or has changed.
      raw_data_dir: See `train`.
      data_dir: See `train`.
      data_folder: the current folder of the custom data that the run was trained on; None: it has
        not moved.
      data_indices: the current path of the index file of the run; None: it has not moved.
      console: See `train`.

    Returns:
      The path of `report.html`.

    Raises:
      FlaxdigitsError: if the run is not finished, or its data or checkpoint cannot be read.
    """
    folder, config = open_run(
        workdir, *moved_data(data_folder, data_indices), experiment=experiment)
    folder.check_writable()
    session = Session.start(
        [config], console, raw_data_dir=raw_data_dir, data_dir=data_dir)
    dataset = session.load_for_run(config, folder)
    print_synthetic_data_notice(session.console, dataset.source)
    report_finished(config, dataset, folder, session.progress)
    page = folder.path / "report.html"
    session.console.print(f"figures in {folder.path / 'figures'}, all in one page: {page}")
    return page
