"""`--mode=config`: prints the resolved config, as JSON or as a table with meanings and bounds."""

import sys

from rich.console import Console

from flaxdigits.cli.context import print_json
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig, to_dict
from flaxdigits.reports.config import config_table

WIDTH = 100  # columns of the table in a pipe or a file


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints a table, or JSON in a pipe or a file; returns the exit status."""
    if (options.format or ("table" if sys.stdout.isatty() else "json")) == "json":
        print_json(to_dict(config))
        return 0
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False,
                      emoji=False)
    console.print(config_table(config))
    return 0
