"""--mode=benchmark: how fast train steps are, of one experiment or all, and beside the peers."""

from pathlib import Path

from rich.console import Console

from flaxdigits.api.benchmark import run_benchmark
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.cli.tables import print_table
from flaxdigits.config import ExperimentConfig
from flaxdigits.training.provenance import machine


def run(options: Options, config: ExperimentConfig | None) -> int:
    """Prints a table, with peers a line of ratios each; returns the exit status."""
    workdir = options.optional_workdir() or Path("runs/benchmark")
    found = run_benchmark(options.experiment, *options.overrides, workdir=workdir,
                          peers=options.peers, **data_arguments(options))
    print_table(found.__rich__())
    Console(highlight=False, soft_wrap=True).print(
        f"{machine()}; all timings: {workdir.absolute() / 'benchmark.json'}")
    return 0
