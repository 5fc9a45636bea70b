"""How fast train steps are, of one experiment or all, and beside Keras and PyTorch."""

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from flaxdigits.api.arguments import PathLike, Source
from flaxdigits.api.context import check_before_data, check_devices, load_data, make_console
from flaxdigits.api.experiment import experiment as find_experiment
from flaxdigits.benchmark.compare import ALIKE, Timings, compare, our_command
from flaxdigits.benchmark.peers import PEERS
from flaxdigits.benchmark.start_up import seconds_to_first_step
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.patterns import expand_user
from flaxdigits.training.provenance import machine, versions
from flaxdigits.training.run_folder import RunFolder

# Those that the peers are written for.
PUBLISHED = ("chinese_cnn", "mnist_cnn", "mse_cnn", "kaggle_cnn", "dense_cnn")
MODULES = {"keras": ("keras", "tensorflow"), "torch": ("torch",)}


@dataclasses.dataclass(frozen=True)
class Benchmark(JupyterMixin):
    """Timings; a table in a notebook, or for rich's `print`.

    Attributes:
      measured: what `benchmark.json` holds of each experiment.
      file: that file.
    """

    measured: dict[str, dict[str, Any]]
    file: Path

    def __rich__(self) -> Table:
        return _table(self.measured)


@pinned_settings()
def run_benchmark(
    experiment: PathLike | None = None, *overrides: str, workdir: PathLike | None = None,
    peers: bool = False, data: Source = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None, console: Console | None = None,
) -> Benchmark:
    """Times train steps and the start, each in processes of its own, and writes `benchmark.json`.

    Args:
      experiment: its name or path; None: the five published ones.
      *overrides: as for `flaxdigits.experiment`.
      workdir: where the file is written; None is `runs/benchmark`.
      peers: time Keras on TensorFlow and PyTorch too: the extra `bench`.
      data: as for `train`.
      raw_data_dir: as for `train`.
      data_dir: as for `train`.
      console: as for `train`; with peers, told a line of ratios each.

    Raises:
      FlaxdigitsError: if there is no such experiment or peer, its data are not there, nothing can
        be written, or a process ends early.
    """
    names = list(PUBLISHED) if experiment is None else [os.fspath(experiment)]
    if peers:
        _check_peers(names, overrides)
    check_devices()
    folder = RunFolder(Path("runs/benchmark") if workdir is None else expand_user(workdir))
    folder.check_writable()
    console = console or make_console()
    measured: dict[str, dict[str, Any]] = {}
    for name in names:
        measured[name] = _measure(name, overrides, peers, data, raw_data_dir, data_dir)
        if peers:
            ratios = measured[name]["ratios"]
            console.print(" ".join(
                [name, *(f"ratio {peer} {ratios[peer]:.2f}" for peer in PEERS)]))
        folder.write_json("benchmark.json", {
            "processor": machine(), "versions": versions(), "experiments": measured})
    return Benchmark(measured, folder.path / "benchmark.json")


def _check_peers(names: list[str], overrides: Sequence[str]) -> None:
    strange = [name for name in names if name not in PUBLISHED]
    if strange:
        raise FlaxdigitsError(f"--peers knows {', '.join(PUBLISHED)}, not {strange[0]}")
    for override in overrides:
        if not override.startswith("train.batch_size="):
            raise FlaxdigitsError(
                f"--peers changes train.batch_size with --set and nothing else, got {override}: "
                "the peers' networks are those of the experiments")
    missing = [module for modules in MODULES.values() for module in modules
               if importlib.util.find_spec(module) is None]
    if missing:
        raise FlaxdigitsError(f"--peers needs {', '.join(missing)}: pip install -e '.[bench]'")


def _measure(
    name: str, overrides: Sequence[str], peers: bool, data: Source,
    raw_data_dir: PathLike | None, data_dir: PathLike | None,
) -> dict[str, Any]:
    config = find_experiment(name, *overrides)
    check_before_data(config, Path())
    # Prepared, so that starting up does not prepare them.
    dataset = load_data(config, data, raw_data_dir, data_dir)
    timed = (*overrides, *(ALIKE if peers else ()))
    timings = compare({"ours": our_command(name, timed, dataset)} | {
        peer: [f"{peer}_peer", name, str(config.train.batch_size)]
        for peer in (PEERS if peers else ())})
    own = timings["ours"]
    where = [f"--data={dataset.source}",
             *(f"--{flag}={value}" for flag, value in (
                 ("raw_data_dir", raw_data_dir), ("data_dir", data_dir)) if value)]
    cold, warm = seconds_to_first_step(
        [f"--experiment={name}", *(f"--set={override}" for override in overrides), *where])
    seconds = own.median / 1000
    rate = own.facts["step_flops"] / seconds
    return {
        **own.facts, "overrides": list(timed), "milliseconds": own.median,
        "steps_per_second": 1 / seconds,
        "images_per_second": config.train.batch_size / seconds, "flops_per_second": rate,
        "fraction_of_large_product": rate / own.facts["product_flops"],
        "seconds_to_first_step_cold": cold, "seconds_to_first_step_warm": warm,
        "peak_bytes": own.peak_bytes,
        "ratios": {peer: timing.median / own.median for peer, timing in timings.items()
                   if peer != "ours"},
        "timings": {label: _readable(timing) for label, timing in timings.items()}}


def _readable(timing: Timings) -> dict[str, Any]:
    return {"variant": timing.facts.get("variant"), "version": timing.facts.get("version"),
            "milliseconds": timing.milliseconds, "peak_bytes": timing.peak_bytes}


def _table(measured: dict[str, dict[str, Any]]) -> Table:
    table = Table(caption="First step: seconds from the start of the process, with an empty cache "
                  "of compiled programs and with a filled one.", caption_justify="left")
    for title in ("", "batch", "ms/step", "steps/s", "images/s", "GFLOP/s", "of a large product",
                  "first step cold", "warm", "peak MB"):
        table.add_column(title, justify="right" if title else "left")
    for name, found in measured.items():
        table.add_row(
            Text(name), str(found["batch_size"]), f"{found['milliseconds']:.2f}",
            f"{found['steps_per_second']:.1f}", f"{found['images_per_second']:,.0f}",
            f"{found['flops_per_second'] / 1e9:.1f}",
            f"{100 * found['fraction_of_large_product']:.0f} %",
            f"{found['seconds_to_first_step_cold']:.1f} s",
            f"{found['seconds_to_first_step_warm']:.1f} s", f"{found['peak_bytes'] / 1e6:,.0f}")
    return table
