"""--mode=prepare: reads, checks and prepares an experiment's data, and nothing else."""

from flaxdigits.api.data import prepare
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints what there is; returns the exit status."""
    prepare(config, **data_arguments(options))
    return 0
