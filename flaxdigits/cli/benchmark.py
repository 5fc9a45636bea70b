"""--mode=benchmark: how fast train steps are, of one experiment or all, and beside the peers."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flaxdigits.api.context import check_before_data, load_data
from flaxdigits.benchmark.compare import ALIKE, Timings, compare
from flaxdigits.benchmark.peers import PEERS
from flaxdigits.benchmark.start_up import seconds_to_first_step
from flaxdigits.cli.context import data_arguments, resolve_config
from flaxdigits.cli.options import Options
from flaxdigits.cli.tables import print_table
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.provenance import machine, versions
from flaxdigits.training.run_folder import RunFolder

# Those that the peers are written for.
PUBLISHED = ("chinese_cnn", "mnist_cnn", "mse_cnn", "kaggle_cnn", "dense_cnn")
MODULES = {"keras": ("keras", "tensorflow"), "torch": ("torch",)}


def run(options: Options, config: ExperimentConfig | None) -> int:
    """Prints a table, with peers a line of ratios each, and writes `benchmark.json`."""
    names = [options.experiment] if options.experiment else list(PUBLISHED)
    if options.peers:
        _check_peers(names, options)
    folder = RunFolder(options.workdir() if options.workdirs else Path("runs") / "benchmark")
    folder.path.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, soft_wrap=True)
    measured: dict[str, dict[str, Any]] = {}
    for name in names:
        measured[name] = _measure(name, dataclasses.replace(options, experiment=name))
        if options.peers:
            ratios = measured[name]["ratios"]
            console.print(" ".join(
                [name, *(f"ratio {peer} {ratios[peer]:.2f}" for peer in PEERS)]))
        folder.write_json("benchmark.json", {
            "processor": machine(), "versions": versions(), "experiments": measured})
    print_table(_table(measured))
    console.print(f"{machine()}; all timings: {folder.path / 'benchmark.json'}")
    return 0


def _check_peers(names: list[str], options: Options) -> None:
    strange = [name for name in names if name not in PUBLISHED]
    if strange:
        raise FlaxdigitsError(f"--peers knows {', '.join(PUBLISHED)}, not {strange[0]}")
    for override in options.overrides:
        if not override.startswith("train.batch_size="):
            raise FlaxdigitsError(
                f"--peers changes train.batch_size with --set and nothing else, got {override}: "
                "the peers' networks are those of the experiments")
    missing = [module for modules in MODULES.values() for module in modules
               if importlib.util.find_spec(module) is None]
    if missing:
        raise FlaxdigitsError(f"--peers needs {', '.join(missing)}: pip install -e '.[bench]'")


def _measure(name: str, options: Options) -> dict[str, Any]:
    config = resolve_config(options)
    check_before_data(config, Path())
    # Prepared, so that starting up does not prepare it.
    dataset = load_data(config, **data_arguments(options))
    overrides = (*options.overrides, *(ALIKE if options.peers else ()))
    timings = compare(
        name, overrides, config.train.batch_size, PEERS if options.peers else ())
    ours = timings["ours"]
    where = [f"--data={dataset.source}",
             *(f"--{flag}={value}" for flag, value in (
                 ("raw_data_dir", options.raw_data_dir), ("data_dir", options.data_dir)) if value)]
    cold, warm = seconds_to_first_step(
        [f"--experiment={name}", *(f"--set={override}" for override in options.overrides), *where])
    seconds = ours.median / 1000
    rate = ours.facts["step_flops"] / seconds
    return {
        **ours.facts, "overrides": list(overrides), "milliseconds": ours.median,
        "steps_per_second": 1 / seconds,
        "images_per_second": config.train.batch_size / seconds, "flops_per_second": rate,
        "fraction_of_large_product": rate / ours.facts["product_flops"],
        "seconds_to_first_step_cold": cold, "seconds_to_first_step_warm": warm,
        "peak_bytes": ours.peak_bytes,
        "ratios": {peer: timing.median / ours.median for peer, timing in timings.items()
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
            name, str(found["batch_size"]), f"{found['milliseconds']:.2f}",
            f"{found['steps_per_second']:.1f}", f"{found['images_per_second']:,.0f}",
            f"{found['flops_per_second'] / 1e9:.1f}",
            f"{100 * found['fraction_of_large_product']:.0f} %",
            f"{found['seconds_to_first_step_cold']:.1f} s",
            f"{found['seconds_to_first_step_warm']:.1f} s", f"{found['peak_bytes'] / 1e6:,.0f}")
    return table
