"""--mode=report: draws the figures and the page of a run that has ended, once more."""

from flaxdigits.api.report import report
from flaxdigits.cli.options import Options
from flaxdigits.errors import FlaxdigitsError


def run(options: Options, config: None) -> int:
    """Prints where the page is; returns the exit status."""
    if options.overrides:
        raise FlaxdigitsError("--mode=report is about a run as it was trained: leave out --set")
    report(options.workdir(), experiment=options.experiment, raw_data_dir=options.raw_data_dir,
           data_dir=options.data_dir)
    return 0
