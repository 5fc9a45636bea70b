"""`--mode=prepare`: downloads, verifies and prepares the data of an experiment."""

from flaxdigits.api.data import prepare
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints the sizes of the data set and its splits; returns the exit status."""
    prepare(config, **data_arguments(options))
    return 0
