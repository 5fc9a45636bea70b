"""Several runs side by side."""

import dataclasses
import glob
import os
from pathlib import Path

from rich.jupyter import JupyterMixin
from rich.table import Table

from flaxdigits.api.arguments import PathLike
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.comparison import comparison_table
from flaxdigits.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Comparison(JupyterMixin):
    """Several runs; a table in a notebook, or for rich's `print`.

    Attributes:
      runs: their folders; `run.result()` is what `result.json` holds.
    """

    runs: list[RunFolder]

    def __rich__(self) -> Table:
        return comparison_table(self.runs)


def compare(*workdirs: PathLike) -> Comparison:
    """Several runs side by side.

    Args:
      *workdirs: run folders, or patterns of them such as `runs/*`.

    Raises:
      FlaxdigitsError: if there are none, or one of them holds no run.
    """
    paths = [Path(path) for pattern in map(os.fspath, workdirs)
             for path in sorted(filter(os.path.isdir, glob.glob(os.path.expanduser(pattern))))
             or [pattern]]
    if not paths:
        raise FlaxdigitsError(
            "--mode=compare needs run folders: --workdir=runs/a --workdir=runs/b, "
            "or --workdir='runs/*'")
    runs = [RunFolder(path) for path in paths]
    for run in runs:
        run.data()
    return Comparison(runs)
