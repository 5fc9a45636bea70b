"""--mode=compare: several run folders side by side."""

import glob
from pathlib import Path

from rich.console import Console

from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.comparison import comparison_table
from flaxdigits.training.run_folder import RunFolder


def run(options: Options, config: ExperimentConfig | None) -> int:
    """Prints a table of the runs; returns the exit status."""
    paths = [Path(path) for pattern in options.workdirs
             for path in sorted(glob.glob(str(pattern))) or [pattern]]
    if not paths:
        raise FlaxdigitsError(
            "--mode=compare needs run folders: --workdir=runs/a --workdir=runs/b, "
            "or --workdir='runs/*'")
    Console(highlight=False).print(comparison_table([RunFolder(path) for path in paths]))
    return 0
