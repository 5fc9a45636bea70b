"""The figures and the page of a finished run, once more."""

from pathlib import Path

from rich.console import Console

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.context import check_devices, load_data_of_run, make_console
from flaxdigits.api.experiment import moved_data, recorded_experiment
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.patterns import expand_user
from flaxdigits.reports.result import print_synthetic_data_notice
from flaxdigits.training.parallel import ask_for_deterministic_kernels
from flaxdigits.training.report import report_finished
from flaxdigits.training.run_folder import RunFolder


@pinned_settings()
def report(
    workdir: PathLike, *, experiment: PathLike | None = None,
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    data_folder: PathLike | None = None, data_indices: PathLike | None = None,
    console: Console | None = None,
) -> Path:
    """Draws the figures and `report.html` of a finished run again.

    Args:
      workdir: the run folder.
      experiment: the file of the run's architecture, if it is one of your own.
      raw_data_dir: as for `train`.
      data_dir: as for `train`.
      data_indices: the index file of the run, where it is now; None: where it was.
      data_folder: where the user's own data, which the run was trained on, lie now; None: where
        they were.
      console: as for `train`.

    Returns:
      The path of the page.

    Raises:
      FlaxdigitsError: if the run has not ended, or its data or checkpoint cannot be read.
    """
    config = recorded_experiment(
        workdir, *moved_data(data_folder, data_indices), experiment=experiment)
    if config.train.deterministic:
        ask_for_deterministic_kernels()
    console = console or make_console()
    workdir = expand_user(workdir)
    folder = RunFolder(workdir)
    folder.check_writable()
    check_devices()
    dataset = load_data_of_run(
        config, folder, raw_data_dir=raw_data_dir, data_dir=data_dir)
    print_synthetic_data_notice(console, dataset.source)
    report_finished(config, dataset, folder)
    page = workdir / "report.html"
    console.print(f"figures in {workdir / 'figures'}, all in one page: {page}")
    return page
