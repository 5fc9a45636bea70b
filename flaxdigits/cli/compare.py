"""--mode=compare: several run folders side by side."""

import glob
import os
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
             for path in sorted(filter(os.path.isdir, glob.glob(str(pattern)))) or [pattern]]
    if not paths:
        raise FlaxdigitsError(
            "--mode=compare needs run folders: --workdir=runs/a --workdir=runs/b, "
            "or --workdir='runs/*'")
    table = comparison_table([RunFolder(path) for path in paths])
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe is as wide as it needs to be
        unbounded = console.options.update(max_width=10_000)
        console.width = max(console.width, console.measure(table, options=unbounded).maximum)
    console.print(table)
    return 0
