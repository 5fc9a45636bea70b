"""--mode=summary: the layers of an experiment's network."""

from rich.console import Console

from flaxdigits.api.summary import summary
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints the table; returns the exit status."""
    Console(highlight=False).print(summary(config, **data_arguments(options)))
    return 0
