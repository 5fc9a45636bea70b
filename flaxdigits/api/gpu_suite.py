"""Measures what a GPU does with the recipes: `--mode=benchmark --suite=gpu`."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from flaxdigits.api.experiment import experiment as find_experiment
from flaxdigits.api.session import Session
from flaxdigits.benchmark.compare import PEER_OVERRIDES, Timings, compare, our_command
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.overrides import apply_overrides
from flaxdigits.studies.seeds import train_seeds
from flaxdigits.training.provenance import machine, versions
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.runs import train_many

SPEEDRUN = "mnist_speedrun"  # the experiment whose time to its accuracy is measured
PRECISIONS = ("fp32", "tf32", "bf16")
SEEDS = 10
ROUNDS = 5
SECONDS = 1.0  # duration of one timing, unless it would exceed MAX_STEPS


@dataclasses.dataclass(frozen=True)
class GpuBenchmark(JupyterMixin):
    """The measurements of a GPU, shown as a table in a notebook or by rich's `print`.

    Attributes:
      measured: the measurements of each experiment, as in `benchmark.json`.
      file: the path of `benchmark.json`.
    """

    measured: dict[str, dict[str, Any]]
    file: Path

    def __rich__(self) -> Table:
        return _table(self.measured)


def run_gpu_suite(
    names: Sequence[str], overrides: Sequence[str], peers: bool, session: Session,
    folder: RunFolder,
) -> GpuBenchmark:
    """Times every precision, ten seeds at the same time, and the time to accuracy of SPEEDRUN.

    A line is printed for each result that is not in the table, and `benchmark.json` is written
    after each experiment.

    Args:
      names: the experiments.
      overrides: as for `flaxdigits.experiment`.
      peers: also time the networks in PyTorch, except that of SPEEDRUN.
      session: the console and the data.
      folder: the folder of `benchmark.json`.

    Raises:
      FlaxdigitsError: as `run_benchmark` does.
    """
    for field in (override.partition("=")[0].strip() for override in overrides):
        if field in ("train.precision", "train.seeds_per_call"):
            raise FlaxdigitsError(
                f"suite=gpu measures every precision and several seeds: leave out {field}")
    measured: dict[str, dict[str, Any]] = {}
    for name in names:
        config = find_experiment(name, *overrides)
        dataset = session.load_for_training(config, Path())
        found = measured[name] = _measure_steps(
            name, config, overrides, dataset, peers and name != SPEEDRUN, session)
        seeds = found["seeds"]
        session.console.print(
            f"{name}: {seeds['count']} seeds at the same time take {seeds['relative_time']:.2f} of "
            "the time of one after another")
        if name == SPEEDRUN:
            results: dict[str, Any] = {"data_source": dataset.source}
            found["time_to_accuracy"] = results
            for precision in PRECISIONS:
                result = _time_to_accuracy(config, precision, dataset, session)
                results[precision] = result
                session.console.print(f"{name} {precision}: {_in_words(result)}")
        folder.write_json("benchmark.json", {
            "suite": "gpu", "processor": machine(), "versions": versions(),
            "experiments": measured})
    return GpuBenchmark(measured, folder.path / "benchmark.json")


def _measure_steps(
    name: str, config: ExperimentConfig, overrides: Sequence[str], dataset: Dataset, peers: bool,
    session: Session,
) -> dict[str, Any]:
    common = [*overrides, *(PEER_OVERRIDES if peers else ())]
    batch_size = config.train.batch_size
    ours, several = "flaxdigits {}".format, f"flaxdigits fp32, {SEEDS} seeds"
    commands = {ours(precision): our_command(
        name, [*common, f"train.precision={precision}"], dataset) for precision in PRECISIONS}
    commands[several] = our_command(
        name, [*common, "train.precision=fp32", f"train.seeds_per_call={SEEDS}"], dataset)
    for precision in PRECISIONS if peers else ():
        commands[f"PyTorch {precision}"] = ["torch_peer", name, str(batch_size), precision]
    timings = compare(commands, ROUNDS, SECONDS, session.progress)
    count, one = timings[several].facts["seeds"], timings[ours("fp32")]
    return {
        "overrides": common, "batch_size": batch_size, "device": one.facts["device"],
        "timings": {label: _timing_values(timing, batch_size)
                    for label, timing in timings.items()},
        "ratios": {precision: timings[f"PyTorch {precision}"].median
                   / timings[ours(precision)].median for precision in PRECISIONS if peers},
        "seeds": {"count": count,
                  "relative_time": timings[several].median / (count * one.median)}}


def _timing_values(timing: Timings, batch_size: int) -> dict[str, Any]:
    steps_per_second = timing.facts.get("seeds", 1) * 1000 / timing.median
    return {"variant": timing.facts.get("variant"), "version": timing.facts.get("version"),
            "milliseconds": timing.milliseconds, "median": timing.median,
            "steps_per_second": steps_per_second,
            "images_per_second": steps_per_second * batch_size}


def _time_to_accuracy(
    config: ExperimentConfig, precision: str, dataset: Dataset, session: Session
) -> dict[str, Any]:
    """Trains a single run, for its time, and several seeds at the same time, for the accuracy.

    Raises:
      FlaxdigitsError: if a run is interrupted, or diverges.
    """
    config = apply_overrides(config, [f"train.precision={precision}"])
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder) / "single"
        outcome = train_many({single: config}, dataset, progress=session.progress).get(single)
        summary = train_seeds(
            config, range(SEEDS), dataset, Path(folder), progress=session.progress)
    if outcome is None or outcome.result is None or summary is None:
        raise FlaxdigitsError(f"{config.experiment} {precision}: the runs have not finished")
    accuracy, seconds = (
        summary["metrics"][name] for name in ("test_accuracy", "seconds_training"))
    return {"test_accuracy": accuracy,
            "seconds_training": outcome.result["seconds_training"],
            "seconds_compiling": outcome.result["seconds_compiling"],
            "seconds_training_all_seeds": seconds["mean"] * seconds["n"]}


def _in_words(result: dict[str, Any]) -> str:
    accuracy = result["test_accuracy"]
    return (f"test accuracy {100 * accuracy['mean']:.2f} % ± {100 * (accuracy['sd'] or 0):.2f} "
            f"({accuracy['n']} seeds); {result['seconds_training']:.1f} s of training after "
            f"{result['seconds_compiling']:.1f} s of compiling, and "
            f"{result['seconds_training_all_seeds']:.1f} s for all seeds at the same time")


def _table(measured: dict[str, dict[str, Any]]) -> Table:
    table = Table(caption="Ratio: the time of a step in PyTorch divided by that in flaxdigits. "
                  f"{SEEDS} seeds: the steps of all seeds count.", caption_justify="left")
    for title in ("", "batch", "timed", "ms/step", "steps/s", "images/s", "ratio"):
        table.add_column(title, justify="left" if title in ("", "timed") else "right")
    for name, found in measured.items():
        for label, timing in found["timings"].items():
            ratio = found["ratios"].get(label.removeprefix("flaxdigits "))
            table.add_row(
                Text(name), str(found["batch_size"]),
                Text(" ".join(filter(None, [label, timing["variant"]]))),
                f"{timing['median']:.3f}", f"{timing['steps_per_second']:,.0f}",
                f"{timing['images_per_second']:,.0f}", "" if ratio is None else f"{ratio:.2f}")
    return table
