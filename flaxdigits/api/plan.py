"""The table of `--dry_run`: the runs that are missing, and how long they take."""

from collections.abc import Collection, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from flaxdigits.config import ExperimentConfig
from flaxdigits.studies.ablation import LoadDataset
from flaxdigits.studies.estimate import measure_cost
from flaxdigits.training.experiment import Experiment


def plan_table(
    missing: Mapping[str, tuple[ExperimentConfig, Collection[int]]], seeds: Sequence[int],
    load: LoadDataset,
) -> Table:
    """Returns a table of the missing runs and an estimate of how long they take.

    Args:
      missing: the config and the missing seeds of each group of runs, by name.
      seeds: all seeds.
      load: returns the data set of a config.
    """
    table = Table(show_footer=True, caption="The times are estimated from some train steps timed "
                  "now, on this machine and with its present load.", caption_justify="left")
    rows, total = [], 0.0
    for name, (config, to_run) in missing.items():
        seconds = 0.0
        if to_run:
            cost = measure_cost(Experiment.create(config, load(config)))
            seconds = cost.compiling + len(to_run) * cost.training_and_evaluating
        total += seconds
        rows.append((name, str(len(seeds) - len(to_run)), ", ".join(map(str, to_run)) or "-",
                     duration(seconds)))
    for name, footer in (("runs", "total"), ("done", ""), ("seeds to run", ""),
                         ("about", duration(total))):
        table.add_column(name, footer, justify="right" if name == "about" else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def duration(seconds: float) -> str:
    """Formats a duration, such as 45 s, 12 min or 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
