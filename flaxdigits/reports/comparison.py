"""The table of `--mode=compare`: several runs side by side."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from flaxdigits.config import flatten
from flaxdigits.training.run_folder import RunFolder

COLUMNS = {
    "experiment": "{}", "dataset": "{}", "data_source": "{}", "split": "{}", "seed": "{}",
    "steps": "{}", "train_accuracy": "{:.3%}", "validation_accuracy": "{:.3%}",
    "test_accuracy": "{:.3%}", "test_loss": "{:.4f}", "steps_per_second": "{:.1f}",
    "parameters": "{:,}", "device": "{}",
}


def comparison_table(runs: Sequence[RunFolder | str | os.PathLike[str]]) -> Table:
    """Returns a table with a column for each run and a row for each field of the result.

    A column is named by the last parts of the path of its run folder.

    Raises:
      FlaxdigitsError: if a folder is not a run folder.
    """
    folders = [RunFolder.of(run) for run in runs]
    table = Table()
    table.add_column("", no_wrap=True)
    results, names = [], _short_names([folder.path for folder in folders])
    for folder in folders:
        result = folder.result()
        name = names[folder.path]
        if result is None:
            run = folder.recorded()
            config = flatten(run["config"])
            result = {"dataset": run["data"]["dataset"], "data_source": run["data"]["source"],
                      "experiment": config.get("experiment"), "split": config.get("data.split"),
                      "seed": config.get("seed")}
            name += " (unfinished)" if folder.diverged() is None else " (diverged)"
        results.append(result)
        table.add_column(Text(name), justify="right", overflow="fold")
    for name, form in COLUMNS.items():
        values = [result.get(name) for result in results]
        if any(value is not None for value in values):
            cells = ("-" if value is None else form.format(value) for value in values)
            table.add_row(name, *map(Text, cells))
    return table


def _short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns the last parts of each path, as many as are needed to distinguish the paths."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    return {path: str(Path(*path.parts[-depth:])) for path in paths}
