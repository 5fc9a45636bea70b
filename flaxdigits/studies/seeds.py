"""Trains several seeds of an experiment, each as a separate run, and summarizes the results."""

import dataclasses
import logging
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.studies.statistics import estimate
from flaxdigits.training.results import Outcome, ReportWriter, no_report
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.runs import train_many
from flaxdigits.training.trackers import Tracker

_log = logging.getLogger(__name__)

COMMON_FIELDS = (
    "experiment", "dataset", "data_source", "split", "checkpoint", "device", "deterministic")


def checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Checks seeds and returns them as Python integers.

    Args:
      seeds: the seeds, such as `range(5)`, `(0, 3, 7)` or NumPy's `arange(5)`.

    Raises:
      FlaxdigitsError: if they are not distinct integers from 0 to 2**32 - 1, or there are none.
    """
    try:
        chosen = tuple(map(operator.index, seeds))
    except TypeError:  # not an iterable, or not integers
        chosen = ()
    if not chosen or len(set(chosen)) < len(chosen) or not all(
            0 <= seed < 2**32 for seed in chosen):
        raise FlaxdigitsError("seeds must be distinct integers from 0 to 2**32 - 1, as in "
                              f"range(5), got {seeds!r}")
    return chosen


def seed_folders(workdir: Path, seeds: Sequence[int]) -> dict[int, Path]:
    """Returns the run folder of each seed."""
    return {seed: Path(workdir) / "seeds" / str(seed) for seed in seeds}


def seed_configs(
    config: ExperimentConfig, seeds: Sequence[int], workdir: Path
) -> dict[Path, ExperimentConfig]:
    """Returns the config of each seed by its run folder."""
    return {path: dataclasses.replace(config, seed=seed)
            for seed, path in seed_folders(workdir, seeds).items()}


def unfinished(workdir: Path, seeds: Sequence[int]) -> dict[int, Path]:
    """Returns the run folders of the seeds that have neither finished nor diverged."""
    return {seed: path for seed, path in seed_folders(workdir, seeds).items()
            if not RunFolder(path).has_ended()}


def train_seeds(
    config: ExperimentConfig, seeds: Sequence[int], dataset: Dataset, workdir: Path,
    trackers: Callable[[Path], Sequence[Tracker]] = lambda workdir: (),
    on_end: Callable[[int, Outcome], None] = lambda seed, outcome: None,
    write_report: ReportWriter = no_report, progress: Progress = NO_PROGRESS,
) -> dict[str, Any] | None:
    """Trains the unfinished seeds and writes `summary.json`.

    Args:
      config: the config of the experiment; its seed is ignored.
      seeds: each is trained in the run folder `<workdir>/seeds/<seed>/`.
      dataset: the data set of `config.data`.
      workdir: the folder of all seeds.
      trackers: see `flaxdigits.training.runs.train_many`.
      on_end: called with each seed that has finished, diverged or was paused.
      write_report: see `flaxdigits.training.runs.train_many`.
      progress: see `flaxdigits.training.runs.train_many`.

    Returns:
      The content of `summary.json` (see `summarize`), or None if a seed was paused.

    Raises:
      FlaxdigitsError: as `flaxdigits.training.runs.train_many` does.
    """
    configs = seed_configs(config, seeds, workdir)
    train_many(
        configs, dataset, trackers, lambda path, outcome: on_end(configs[path].seed, outcome),
        write_report, progress)
    return None if unfinished(workdir, seeds) else write_summary(workdir, seeds)


def results(workdir: Path, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Returns the content of `result.json` of each seed that has finished."""
    found = {seed: RunFolder(path).result() for seed, path in seed_folders(workdir, seeds).items()}
    return {seed: result for seed, result in found.items() if result is not None}


def write_summary(workdir: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Writes `summary.json`, and returns its content.

    Args:
      workdir: the folder of the seeds.
      seeds: seeds that have ended. Other seeds in the same folder that have ended with the same
        config and data are included in the summary.
    """
    summary = summarize(workdir, sorted({*seeds, *_ended_with_same_config(workdir, seeds[0])}))
    RunFolder(workdir).write_json("summary.json", summary)
    return summary


def _ended_with_same_config(workdir: Path, seed: int) -> list[int]:
    """Returns the seeds that have ended with the same config and data as `seed`."""
    run = RunFolder(seed_folders(workdir, [seed])[seed]).recorded()
    seeds = [int(path.name) for path in (Path(workdir) / "seeds").iterdir()
             if re.fullmatch(r"0|[1-9]\d{0,9}", path.name)]
    return [other for other, path in seed_folders(workdir, seeds).items()
            if _has_ended(path, run | {"config": run["config"] | {"seed": other}})]


def _has_ended(path: Path, run: Mapping[str, Any]) -> bool:
    """Returns whether a folder contains the given run and the run has ended."""
    folder = RunFolder(path)
    try:
        return folder.has_ended() and not folder.differences(run)
    except FlaxdigitsError as error:
        _log.warning("not included in summary.json: %s", error)
        return False


def summarize(workdir: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Summarizes the results of seeds that have ended.

    Returns:
      A dictionary with the fields of `COMMON_FIELDS` that are the same for all seeds; `seeds`;
      `finished`; `diverged`: the step and message of each seed that diverged; and `metrics`: mean,
      standard deviation and 95 % interval of every metric over the seeds that finished.
    """
    finished = results(workdir, seeds)
    diverged = {seed: RunFolder(path).diverged()
                for seed, path in seed_folders(workdir, seeds).items()}
    return {
        **_common(list(finished.values())),
        "seeds": list(seeds),
        "finished": list(finished),
        "diverged": {str(seed): values for seed, values in diverged.items() if values is not None},
        "metrics": {name: dataclasses.asdict(estimate(values))
                    for name, values in numeric_metrics(list(finished.values())).items()}}


def numeric_metrics(found: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Returns the values of each field that is a number in every result."""
    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    names = [name for name in (found[0] if found else {})
             if name != "seed" and all(is_number(result.get(name)) for result in found)]
    return {name: [result[name] for result in found] for name in names}


def _common(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the fields of `COMMON_FIELDS` that are the same in all results."""
    return {name: found[0][name] for name in COMMON_FIELDS
            if found and all(result.get(name) == found[0][name] for result in found)}
