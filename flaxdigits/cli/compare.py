"""--mode=compare: several run folders side by side."""

from flaxdigits.api.compare import compare
from flaxdigits.cli.options import Options
from flaxdigits.cli.tables import print_table


def run(options: Options, config: None) -> int:
    """Prints a table of the runs; returns the exit status."""
    print_table(compare(*options.workdirs).__rich__())
    return 0
