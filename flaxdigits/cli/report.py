"""--mode=report: draws the figures and the page of a run that has ended, once more."""

from rich.console import Console

from flaxdigits.cli.context import load_data_of_run, warn_of_unused_gpu
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.result import tell_of_drawn_data
from flaxdigits.training.parallel import ask_for_deterministic_kernels
from flaxdigits.training.report import report_finished
from flaxdigits.training.run_folder import RunFolder


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints where the page is; returns the exit status."""
    if options.overrides:
        raise FlaxdigitsError("--mode=report is about a run as it was trained: leave out --set")
    if config.train.deterministic:
        ask_for_deterministic_kernels()
    console = Console(highlight=False, soft_wrap=True)
    folder = RunFolder(options.workdir())
    folder.check_writable()
    warn_of_unused_gpu()
    dataset = load_data_of_run(config, options)
    tell_of_drawn_data(console, dataset.source)
    report_finished(config, dataset, folder)
    console.print(f"figures in {options.workdir() / 'figures'}, all in one page: "
                  f"{options.workdir() / 'report.html'}")
    return 0
