"""Measures how the cost of an experiment grows with examples, batch size and parameters."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.experiment import experiment as find_experiment
from flaxdigits.api.session import Session, Source, output_folder
from flaxdigits.benchmark.compare import compare, our_command, share_gpu
from flaxdigits.benchmark.growth import ROUNDS, SECONDS, exponents, measurements, sizes
from flaxdigits.data.splits import split_indices
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.training.provenance import machine, versions
from flaxdigits.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Growth(JupyterMixin):
    """The timings of several sizes, shown as a table in a notebook or by rich's `print`.

    Attributes:
      measured: the measurements of each size, by its label.
      exponents: the exponent with which the cost grows with examples, batch size and parameters;
        1 means that it is proportional.
      file: the path of `growth.json`, which contains both.
    """

    measured: dict[str, dict[str, Any]]
    exponents: dict[str, float]
    file: Path

    def __rich__(self) -> Table:
        return _table(self.measured)


@pinned_settings()
def run_growth(
    experiment: PathLike, *overrides: str, workdir: PathLike | None = None, data: Source = "auto",
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    console: Console | None = None,
) -> Growth:
    """Times an experiment with fewer examples, other batch sizes and other widths.

    Every size is trained in a separate process, on random pixels of the shape of the data; all
    processes are in memory at the same time. Warmup is disabled, since it could be longer than
    the run of a smaller size.

    Args:
      experiment: the name or path of the experiment.
      *overrides: as for `flaxdigits.experiment`.
      workdir: the folder of `growth.json`; None: `runs/growth/<experiment>`.
      data: See `train`.
      raw_data_dir: See `train`.
      data_dir: See `train`.
      console: See `train`.

    Raises:
      FlaxdigitsError: if there is no such experiment, the data are not found or cannot be split as
        the config requires, the file cannot be written, or a process fails.
    """
    share_gpu()
    session = Session.start([], console, data, raw_data_dir, data_dir)
    config = find_experiment(experiment, *overrides)
    folder = RunFolder(output_folder(workdir, f"growth/{config.experiment}"))
    dataset = session.load_for_training(config, Path())
    all_sizes = sizes(config, len(split_indices(config.data, dataset)["train"]))
    folder.check_writable()
    session.console.print(f"{config.experiment}: timing {len(all_sizes)} sizes")
    schedule = config.optimizer.schedule
    without_warmup = (["optimizer.schedule.warmup_steps=0"]
                      if hasattr(schedule, "warmup_steps") else [])
    timings = compare(
        {label: our_command(
            os.fspath(experiment), [*overrides, *size.overrides, *without_warmup],
            dataset) for label, size in all_sizes.items()}, ROUNDS, SECONDS,
        session.progress)
    measured = {label: measurements(timing) for label, timing in timings.items()}
    powers = exponents(measured, all_sizes)
    folder.write_json("growth.json", {
        "experiment": config.experiment, "overrides": list(overrides), "processor": machine(),
        "versions": versions(), "exponents": powers, "sizes": measured})
    return Growth(measured, powers, folder.path / "growth.json")


def _table(measured: dict[str, dict[str, Any]]) -> Table:
    """Returns the table of the measurements, by the label of the variant."""
    table = Table()
    for title in ("", "examples", "batch", "parameters", "GFLOP/step", "ms/step", "s/epoch",
                  "peak memory, MB", "upper bound, MB"):
        table.add_column(title, justify="right" if title else "left")
    for label, found in measured.items():
        table.add_row(
            Text(label), f"{found['examples']:,}", f"{found['batch_size']:,}",
            f"{found['parameters']:,}", f"{found['step_flops'] / 1e9:.2f}",
            f"{found['milliseconds']:.2f}", f"{found['epoch_seconds']:.2f}",
            f"{found['peak_bytes'] / 1e6:,.0f}", f"{found['memory_bound'] / 1e6:,.0f}")
    return table
