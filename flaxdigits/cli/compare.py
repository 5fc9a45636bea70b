"""`--mode=compare`: compares several runs."""

from flaxdigits.api.compare import compare
from flaxdigits.api.console import make_console, print_table
from flaxdigits.cli.options import Options


def run(options: Options, config: None) -> int:
    """Prints a table of the runs; returns the exit status."""
    print_table(make_console(), compare(*options.workdirs).__rich__())
    return 0
