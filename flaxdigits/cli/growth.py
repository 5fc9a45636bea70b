"""`--mode=growth`: measures how the cost grows with examples, batch size and parameters."""

from flaxdigits.api.console import make_console, print_table
from flaxdigits.api.growth import run_growth
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.provenance import machine


def run(options: Options, config: ExperimentConfig | None) -> int:
    """Prints a table and a line of the exponents; returns the exit status."""
    if options.experiment is None or config is None:
        raise FlaxdigitsError("--mode=growth needs --experiment; --list shows all experiments")
    growth = run_growth(options.experiment, *options.overrides, workdir=options.optional_workdir(),
                        **data_arguments(options))
    console = make_console()
    print_table(console, growth.__rich__())
    console.print(f"the cost of {config.experiment} grows with " + ", ".join(
        f"{variable} to the power of {power:.2f}" for variable, power in growth.exponents.items()))
    console.print(f"{machine()}; all timings: {growth.file}")
    return 0
