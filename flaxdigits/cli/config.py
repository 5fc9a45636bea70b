"""`--mode=config`: prints the resolved config as JSON."""

from flaxdigits.cli.context import print_json
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig, to_dict


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints the config; returns the exit status."""
    print_json(to_dict(config))
    return 0
