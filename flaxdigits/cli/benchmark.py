"""`--mode=benchmark`: times train steps, optionally compared with Keras and PyTorch."""

from flaxdigits.api.benchmark import run_benchmark
from flaxdigits.api.console import make_console, print_table
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.training.provenance import machine


def run(options: Options, config: ExperimentConfig | None) -> int:
    """Prints a table of the timings; returns the exit status."""
    benchmark = run_benchmark(
        options.experiment, *options.overrides, workdir=options.optional_workdir(),
        peers=options.peers, suite=options.suite, **data_arguments(options))
    console = make_console()
    print_table(console, benchmark.__rich__())
    console.print(f"{machine()}; all timings: {benchmark.file}")
    return 0
