"""Times train steps of experiments, optionally compared with Keras and PyTorch."""

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from flaxdigits.api.arguments import PathLike, path_text
from flaxdigits.api.experiment import experiment as find_experiment
from flaxdigits.api.gpu_suite import SPEEDRUN, GpuBenchmark, run_gpu_suite
from flaxdigits.api.session import Session, Source, output_folder
from flaxdigits.benchmark.compare import PEER_OVERRIDES, Timings, compare, our_command, share_gpu
from flaxdigits.benchmark.peers import PEERS
from flaxdigits.benchmark.start_up import seconds_to_first_step
from flaxdigits.errors import FlaxdigitsError, quoted
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.training.provenance import machine, versions
from flaxdigits.training.run_folder import RunFolder

# The experiments that are also implemented in Keras and PyTorch.
PUBLISHED = ("chinese_cnn", "mnist_cnn", "mse_cnn", "kaggle_cnn", "dense_cnn")
PEER_MODULES = ("keras", "tensorflow", "torch")


@dataclasses.dataclass(frozen=True)
class Benchmark(JupyterMixin):
    """The timings of a benchmark, shown as a table in a notebook or by rich's `print`.

    Attributes:
      measured: the measurements of each experiment, as in `benchmark.json`.
      file: the path of `benchmark.json`.
    """

    measured: dict[str, dict[str, Any]]
    file: Path

    def __rich__(self) -> Table:
        return _table(self.measured)


@pinned_settings()
def run_benchmark(
    experiment: PathLike | None = None, *overrides: str, workdir: PathLike | None = None,
    peers: bool = False, suite: str | None = None, data: Source = "auto",
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    console: Console | None = None,
) -> Benchmark | GpuBenchmark:
    """Times train steps and the time to the first step, and writes `benchmark.json`.

    Every measurement of a train step runs in a separate process.

    Args:
      experiment: the name or path of an experiment; None: the five published ones, and with
        `suite="gpu"` also `mnist_speedrun`.
      *overrides: as for `flaxdigits.experiment`.
      workdir: the folder of `benchmark.json`; None: `runs/benchmark`.
      peers: also time the same networks in Keras on TensorFlow and in PyTorch. Needs the extra
        `bench`; with `suite="gpu"` only PyTorch is timed and needed.
      suite: `gpu`: in place of the measurements above, time a step in each precision, a step of ten
        seeds at the same time, and the training of `mnist_speedrun` with its accuracy.
      data: See `train`.
      raw_data_dir: See `train`.
      data_dir: See `train`.
      console: See `train`. With `peers`, a line of ratios is printed for each experiment.

    Raises:
      FlaxdigitsError: if there is no such experiment or peer, the data are not found, the file
        cannot be written, or a process fails.
    """
    if suite not in (None, "gpu"):
        raise FlaxdigitsError(f"suite must be gpu, got {quoted(suite)}")
    names = [path_text(experiment, "experiment")] if experiment is not None else [
        *([SPEEDRUN] if suite == "gpu" else []), *PUBLISHED]
    if peers and suite == "gpu":
        _check_peers(PUBLISHED if experiment is None else names, overrides, ("torch",))
    elif peers:
        _check_peers(names, overrides, PEER_MODULES)
    share_gpu()
    session = Session.start([], console, data, raw_data_dir, data_dir)
    folder = RunFolder(output_folder(workdir, "benchmark"))
    folder.check_writable()
    if suite == "gpu":
        return run_gpu_suite(names, overrides, peers, session, folder)
    measured: dict[str, dict[str, Any]] = {}
    for name in names:
        measured[name] = _measure(name, overrides, peers, session)
        if peers:
            ratios = measured[name]["ratios"]
            session.console.print(" ".join(
                [name, *(f"ratio {peer} {ratios[peer]:.2f}" for peer in PEERS)]))
        folder.write_json("benchmark.json", {
            "processor": machine(), "versions": versions(), "experiments": measured})
    return Benchmark(measured, folder.path / "benchmark.json")


def _check_peers(
    names: Sequence[str], overrides: Sequence[str], modules: Sequence[str]
) -> None:
    unknown = [name for name in names if name not in PUBLISHED]
    if unknown:
        raise FlaxdigitsError(f"peers: supports {', '.join(PUBLISHED)}, not {unknown[0]}")
    for override in overrides:
        if not override.startswith("train.batch_size="):
            raise FlaxdigitsError(
                f"with peers, an override can only change train.batch_size, got {override}: the "
                "networks of the peers are those of the built-in experiments")
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise FlaxdigitsError(f"peers: needs {', '.join(missing)}: pip install -e '.[bench]'")


def _measure(
    name: str, overrides: Sequence[str], peers: bool, session: Session
) -> dict[str, Any]:
    config = find_experiment(name, *overrides)
    # Prepares the data now, so that the time to the first step does not include it.
    dataset = session.load_for_training(config, Path())
    all_overrides = (*overrides, *(PEER_OVERRIDES if peers else ()))
    timings = compare({"ours": our_command(name, all_overrides, dataset)} | {
        peer: [f"{peer}_peer", name, str(config.train.batch_size)]
        for peer in (PEERS if peers else ())}, progress=session.progress)
    ours = timings["ours"]
    data_flags = [f"--data={dataset.source}",
                  *(f"--{flag}={value}" for flag, value in (
                      ("raw_data_dir", session.raw_data_dir),
                      ("data_dir", session.data_dir)) if value)]
    with session.progress.stage("timing the first step, cold and warm"):
        cold, warm = seconds_to_first_step([
            f"--experiment={name}", *(f"--set={override}" for override in overrides),
            *data_flags])
    seconds = ours.median / 1000
    rate = ours.facts["step_flops"] / seconds
    return {
        **ours.facts, "overrides": list(all_overrides), "milliseconds": ours.median,
        "steps_per_second": 1 / seconds,
        "images_per_second": ours.facts["seeds"] * config.train.batch_size / seconds,
        "flops_per_second": rate,
        "fraction_of_large_product": rate / ours.facts["product_flops"],
        "seconds_to_first_step_cold": cold, "seconds_to_first_step_warm": warm,
        "peak_bytes": ours.peak_bytes,
        "ratios": {peer: timing.median / ours.median for peer, timing in timings.items()
                   if peer != "ours"},
        "timings": {label: _timing_values(timing) for label, timing in timings.items()}}


def _timing_values(timing: Timings) -> dict[str, Any]:
    return {"variant": timing.facts.get("variant"), "version": timing.facts.get("version"),
            "milliseconds": timing.milliseconds, "peak_bytes": timing.peak_bytes}


def _table(measured: dict[str, dict[str, Any]]) -> Table:
    table = Table(caption="First step: seconds from the start of the process to the first training "
                  "step, with an empty compilation cache (cold) and with a filled one (warm).",
                  caption_justify="left")
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
