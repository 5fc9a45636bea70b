"""Many seeds of an experiment: each a run of its own, and a summary of them all."""

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
from flaxdigits.studies.statistics import estimate
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.runs import no_report, train_many
from flaxdigits.training.trackers import Tracker
from flaxdigits.training.trainer import Outcome, ReportWriter

_log = logging.getLogger(__name__)

ABOUT = ("experiment", "dataset", "data_source", "split", "checkpoint", "device", "deterministic")


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds that `0..9`, `0,3,7` or a mixture of both names, in that order.

    Raises:
      FlaxdigitsError: if it is something else, or names a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:\.\.(\d{1,10}))?\s*", part)
        first, last = match.groups() if match else ("1", "0")
        span = range(int(first), int(last or first) + 1)
        if not span or span.stop > 2**32 or len(span) > 10_000:
            raise FlaxdigitsError(
                f"--seeds takes whole numbers below 2**32 such as 0..9 or 0,3,7, got {text!r}")
        seeds += span
    if len(set(seeds)) < len(seeds):
        raise FlaxdigitsError(f"--seeds names a seed twice: {text}")
    return tuple(seeds)


def checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds that are some, and different, as Python's numbers.

    Args:
      seeds: like `range(5)`, `(0, 3, 7)` or NumPy's `arange(5)`.

    Raises:
      FlaxdigitsError: if they are something else, or none that a run may have.
    """
    try:
        chosen = tuple(map(operator.index, seeds))
    except TypeError:  # which operator.index and what is no iterable raise
        chosen = ()
    if not chosen or len(set(chosen)) < len(chosen) or not all(
            0 <= seed < 2**32 for seed in chosen):
        raise FlaxdigitsError("seeds must be different whole numbers from 0 to 2**32 - 1, as in "
                              f"range(5), got {seeds!r}")
    return chosen


def seed_folders(workdir: Path, seeds: Sequence[int]) -> dict[int, Path]:
    """Where the run of each seed lies."""
    return {seed: Path(workdir) / "seeds" / str(seed) for seed in seeds}


def seed_configs(
    config: ExperimentConfig, seeds: Sequence[int], workdir: Path
) -> dict[Path, ExperimentConfig]:
    """The config of each seed by the folder of its run."""
    return {path: dataclasses.replace(config, seed=seed)
            for seed, path in seed_folders(workdir, seeds).items()}


def unfinished(workdir: Path, seeds: Sequence[int]) -> dict[int, Path]:
    """The folders of the seeds that have neither a result nor diverged."""
    return {seed: path for seed, path in seed_folders(workdir, seeds).items()
            if not RunFolder(path).has_ended()}


def train_seeds(
    config: ExperimentConfig, seeds: Sequence[int], dataset: Dataset, workdir: Path,
    trackers: Callable[[Path], Sequence[Tracker]] = lambda workdir: (),
    on_end: Callable[[int, Outcome], None] = lambda seed, outcome: None,
    write_report: ReportWriter = no_report,
) -> dict[str, Any] | None:
    """Trains the seeds that are not finished yet and writes `summary.json`.

    Args:
      config: of the experiment; its own seed is not used.
      seeds: each is trained in `<workdir>/seeds/<seed>/`, a run folder like any other.
      dataset: of `config.data`.
      workdir: of them all.
      trackers: see `flaxdigits.training.runs.train_many`.
      on_end: called with each seed that has ended, diverged or was paused.
      write_report: see `flaxdigits.training.runs.train_many`.

    Returns:
      What `summary.json` holds (see `write_summary`), or None if some seed was paused.

    Raises:
      FlaxdigitsError: as `flaxdigits.training.runs.train` does, but not for a seed that diverges.
    """
    configs = seed_configs(config, seeds, workdir)
    train_many(
        configs, dataset, trackers, lambda path, outcome: on_end(configs[path].seed, outcome),
        write_report)
    return None if unfinished(workdir, seeds) else write_summary(workdir, seeds)


def results(workdir: Path, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """`result.json` of each seed that has ended, without those that diverged."""
    found = {seed: RunFolder(path).result() for seed, path in seed_folders(workdir, seeds).items()}
    return {seed: result for seed, result in found.items() if result is not None}


def write_summary(workdir: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Writes what `summarise` says to `summary.json`: of these seeds, which have ended, and of the
    others there that have ended with the same config and data.
    """
    summary = summarise(workdir, sorted({*seeds, *_ended_alike(workdir, seeds[0])}))
    RunFolder(workdir).write_json("summary.json", summary)
    return summary


def _ended_alike(workdir: Path, seed: int) -> list[int]:
    """The seeds that have ended with the config and the data of this one."""
    like = RunFolder(seed_folders(workdir, [seed])[seed]).recorded()
    there = [int(path.name) for path in (Path(workdir) / "seeds").iterdir()
             if re.fullmatch(r"0|[1-9]\d{0,9}", path.name)]
    return [other for other, path in seed_folders(workdir, there).items()
            if _has_ended_alike(path, like | {"config": like["config"] | {"seed": other}})]


def _has_ended_alike(path: Path, run: Mapping[str, Any]) -> bool:
    """Returns whether a run has ended in a folder, and was this one."""
    folder = RunFolder(path)
    try:
        return folder.has_ended() and not folder.differences(run)
    except FlaxdigitsError as error:
        _log.warning("left out of summary.json: %s", error)
        return False


def summarise(workdir: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """What the seeds' folders say: every figure of their results with its mean and interval.

    A seed that diverged counts in none of them; it is named with what became of it.
    """
    ended = results(workdir, seeds)
    diverged = {seed: RunFolder(path).diverged()
                for seed, path in seed_folders(workdir, seeds).items()}
    return {
        **_common(list(ended.values())),
        "seeds": list(seeds),
        "finished": list(ended),
        "diverged": {str(seed): values for seed, values in diverged.items() if values is not None},
        "figures": {name: dataclasses.asdict(estimate(values))
                    for name, values in numeric_metrics(list(ended.values())).items()}}


def numeric_metrics(found: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """The values of each figure that is a number in all the results."""
    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    names = [name for name in (found[0] if found else {})
             if name != "seed" and all(is_number(result.get(name)) for result in found)]
    return {name: [result[name] for result in found] for name in names}


def _common(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all results say alike."""
    return {name: found[0][name] for name in ABOUT
            if found and all(result.get(name) == found[0][name] for result in found)}
