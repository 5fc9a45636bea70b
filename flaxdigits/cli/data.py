"""`--mode=data`: draws preprocessed training images, and counts classes and writers."""

from flaxdigits.api.data import preview_data
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints the counts and the path of the figure; returns the exit status."""
    preview_data(config, options.optional_workdir(), **data_arguments(options))
    return 0
