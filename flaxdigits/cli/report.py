"""`--mode=report`: writes the report of a finished run again."""

from flaxdigits.api.report import report
from flaxdigits.cli.context import moved_data_of
from flaxdigits.cli.options import Options


def run(options: Options, config: None) -> int:
    """Prints the path of the page; returns the exit status."""
    report(options.workdir(), experiment=options.experiment, raw_data_dir=options.raw_data_dir,
           data_dir=options.data_dir, **moved_data_of(options))
    return 0
