"""--mode=benchmark: how fast train steps are, of one experiment or all, and beside the peers."""

from flaxdigits.api.benchmark import run_benchmark
from flaxdigits.api.context import make_console, print_table
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.training.provenance import machine


def run(options: Options, config: ExperimentConfig | None) -> int:
    """Prints a table, with peers a line of ratios each; returns the exit status."""
    found = run_benchmark(
        options.experiment, *options.overrides, workdir=options.optional_workdir(),
        peers=options.peers, **data_arguments(options))
    console = make_console()
    print_table(console, found.__rich__())
    console.print(f"{machine()}; all timings: {found.file}")
    return 0
