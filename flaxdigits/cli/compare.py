"""--mode=compare: several run folders side by side."""

import glob
import os
from pathlib import Path

from flaxdigits.cli.options import Options
from flaxdigits.cli.tables import print_table
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.comparison import comparison_table
from flaxdigits.training.run_folder import RunFolder


def run(options: Options, config: ExperimentConfig | None) -> int:
    """Prints a table of the runs; returns the exit status."""
    paths = [Path(path) for pattern in options.workdirs
             for path in sorted(filter(os.path.isdir, glob.glob(str(pattern)))) or [pattern]]
    if not paths:
        raise FlaxdigitsError(
            "--mode=compare needs run folders: --workdir=runs/a --workdir=runs/b, "
            "or --workdir='runs/*'")
    print_table(comparison_table([RunFolder(path) for path in paths]))
    return 0
