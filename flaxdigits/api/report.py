"""Writes the report of a finished run again."""

from pathlib import Path

from rich.console import Console

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.context import check_devices, load_data_of_run, make_console
from flaxdigits.api.experiment import moved_data, recorded_experiment
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.patterns import expand_user
from flaxdigits.reports.finished_run import report_finished
from flaxdigits.reports.result import print_synthetic_data_notice
from flaxdigits.training.parallel import ask_for_deterministic_kernels
from flaxdigits.training.progress import console_progress
from flaxdigits.training.run_folder import RunFolder


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
      experiment: the experiment file of the run, if it registers a custom model or component.
      raw_data_dir: as for `train`.
      data_dir: as for `train`.
      data_folder: the current folder of the custom data that the run was trained on; None: it has
        not moved.
      data_indices: the current path of the index file of the run; None: it has not moved.
      console: as for `train`.

    Returns:
      The path of `report.html`.

    Raises:
      FlaxdigitsError: if the run is not finished, or its data or checkpoint cannot be read.
    """
    config = recorded_experiment(
        workdir, *moved_data(data_folder, data_indices), experiment=experiment)
    if config.train.deterministic:
        ask_for_deterministic_kernels()
    console = console or make_console()
    progress = console_progress(console)
    workdir = expand_user(workdir)
    folder = RunFolder(workdir)
    folder.check_writable()
    check_devices()
    dataset = load_data_of_run(
        config, folder, raw_data_dir=raw_data_dir, data_dir=data_dir, progress=progress)
    print_synthetic_data_notice(console, dataset.source)
    report_finished(config, dataset, folder, progress)
    page = workdir / "report.html"
    console.print(f"figures in {workdir / 'figures'}, all in one page: {page}")
    return page
