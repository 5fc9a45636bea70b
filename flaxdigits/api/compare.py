"""Compares the results of several runs."""

import dataclasses
import glob
import os
from pathlib import Path

from rich.jupyter import JupyterMixin
from rich.table import Table

from flaxdigits.api.arguments import PathLike, path_text
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user
from flaxdigits.reports.comparison import comparison_table
from flaxdigits.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Comparison(JupyterMixin):
    """A comparison of runs, shown as a table in a notebook or by rich's `print`.

    Attributes:
      runs: the run folders; `run.result()` returns the content of `result.json`.
    """

    runs: list[RunFolder]

    def __rich__(self) -> Table:
        return comparison_table(self.runs)


def compare(*workdirs: PathLike) -> Comparison:
    """Compares runs.

    Args:
      *workdirs: run folders, or patterns such as `runs/*`. Matches of a pattern that are not run
        folders are ignored.

    Raises:
      FlaxdigitsError: if no folder is passed, a folder is not a run folder, or a pattern matches
        no run folder.
    """
    paths = [path for workdir in workdirs
             for path in _run_folders(str(expand_user(path_text(workdir, "workdirs"))))]
    if not paths:
        raise FlaxdigitsError(
            "compare needs the folders of runs: pass one or several of them, or a pattern such as "
            "'runs/*', as workdir")
    runs = [RunFolder(path) for path in paths]
    for run in runs:
        run.check_is_run()
    return Comparison(runs)


def _run_folders(pattern: str) -> list[Path]:
    """Returns the run folders that match a pattern; the path itself if it exists or none match."""
    if os.path.isdir(pattern):
        return [Path(pattern)]
    matches = [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]
    return [path for path in matches if (path / "config.json").is_file()] or [Path(pattern)]
