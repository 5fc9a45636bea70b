"""Several runs side by side."""

import dataclasses
import glob
import os
from pathlib import Path

from rich.jupyter import JupyterMixin
from rich.table import Table

from flaxdigits.api.arguments import PathLike
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user
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
      *workdirs: run folders, or patterns of them such as `runs/*`; of what a pattern finds,
        only the run folders count.

    Raises:
      FlaxdigitsError: if there are none, one that is named holds no run, or a pattern finds none.
    """
    paths = [path for named in workdirs for path in _run_folders(str(expand_user(named)))]
    if not paths:
        raise FlaxdigitsError(
            "--mode=compare needs run folders: --workdir=runs/a --workdir=runs/b, "
            "or --workdir='runs/*'")
    runs = [RunFolder(path) for path in paths]
    for run in runs:
        run.data()
    return Comparison(runs)


def _run_folders(named: str) -> list[Path]:
    """The run folders that a pattern finds; what is named outright, or finds none, as it is."""
    if os.path.isdir(named):
        return [Path(named)]
    found = [Path(path) for path in sorted(glob.glob(named, recursive=True))]
    return [path for path in found if (path / "config.json").is_file()] or [Path(named)]
