"""`--mode=summary`: prints the layers of the network of an experiment."""

from flaxdigits.api.console import make_console, print_table
from flaxdigits.api.summary import summary
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints the table; returns the exit status."""
    print_table(make_console(), summary(config, **data_arguments(options)).__rich__())
    return 0
