"""--mode=data: what an experiment trains on, as its network sees it."""

from flaxdigits.api.data import data_sheet
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints the counts and where the sheet is; returns the exit status."""
    data_sheet(config, options.optional_workdir(), **data_arguments(options))
    return 0
