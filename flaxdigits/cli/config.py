"""--mode=config: the resolved config as JSON."""

import json

from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig, to_dict


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints it; returns the exit status."""
    print(json.dumps(to_dict(config), indent=2, ensure_ascii=False))
    return 0
