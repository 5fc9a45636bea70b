"""Records of finished runs: collected from run folders and small JSON files, kept as the latter.

A record holds what `config.json` and `result.json` hold, without the clocks, which tell more of
what else the machine did than of the run.
"""

import dataclasses
import glob
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig, from_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.studies.replication import FIGURES, HELD_OUT, ORIGINAL, System, differences, extent
from flaxdigits.training.run_folder import RunFolder

CLOCKS = ("seconds_compiling", "seconds_training", "seconds_evaluating", "steps_per_second")
KEPT = "results"  # folder of records beside a report
NAME = re.compile(rf"({ORIGINAL}|{HELD_OUT})-seed\d+\.json")


@dataclasses.dataclass(frozen=True)
class Record:
    """A run that ended.

    Attributes:
      path: where it was found.
      values: `config`, `data`, `versions`, `git_commit`, `machine` as `config.json` has them, and
        `result` or, of a run whose loss stopped being finite, `diverged`.
    """

    path: Path
    values: dict[str, Any]

    @property
    def result(self) -> dict[str, Any] | None:
        """What it came to; None if it diverged."""
        return self.values.get("result")

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.values["config"].get("seed", 0)

    @property
    def machine(self) -> str:
        """What it ran on."""
        return self.values.get("machine") or (self.result or {}).get("device", "not told")

    def file(self) -> bytes:
        """The content of the small file."""
        return (json.dumps(self.values, indent=1, ensure_ascii=False) + "\n").encode()


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """The runs by one protocol that count.

    Attributes:
      system: whose.
      protocol: `original` or `held_out`.
      recipe: its config.
      records: of runs that ended with a result, by seed.
      diverged: the seeds whose loss stopped being finite.
    """

    system: System
    protocol: str
    recipe: ExperimentConfig
    records: dict[int, Record]
    diverged: tuple[int, ...]

    def values(self, figure: str) -> dict[int, float]:
        """A figure of `result.json` by seed; empty if the protocol does not measure it."""
        return {seed: record.result[figure] for seed, record in self.records.items()
                if record.result.get(figure) is not None}

    @property
    def partial(self) -> str | None:
        """How much of the recipe was run, such as `4 of 100 epochs`; None if all of it."""
        for record in self.records.values():  # which are all alike in this
            return _partial(_config(record, self.recipe), self.recipe, record.result)
        return None


@dataclasses.dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
      runs: by experiment and protocol.
      left_out: why a run does not count, by its path.
    """

    runs: dict[str, dict[str, Runs]]
    left_out: dict[str, str]

    def records(self) -> Iterator[tuple[str, Record]]:
        """Those that count, with the path of the file that keeps each."""
        for name, protocols in self.runs.items():
            for protocol, runs in protocols.items():
                for seed, record in sorted(runs.records.items()):
                    yield f"{name}/{protocol}-seed{seed}.json", record


def collect(systems: Sequence[System], patterns: Sequence[str]) -> Collection:
    """The finished runs of the systems' recipes.

    Of a protocol, whole runs count, and if there is none, those that went furthest.

    Args:
      systems: whose.
      patterns: of run folders, files of records, or folders that hold such anywhere.

    Raises:
      FlaxdigitsError: if a pattern finds nothing, or runs that count were of different data.
    """
    left_out: dict[str, str] = {}
    known = {system.name: system for system in systems}
    found: dict[tuple[str, str], list[Record]] = {}
    for path in dict.fromkeys(path for pattern in patterns for path in _paths(pattern)):
        try:
            record = _read(path)
            if record is None or record.values["config"].get("experiment") not in known:
                continue
            system = known[record.values["config"]["experiment"]]
            found.setdefault((system.name, _protocol(record, system)), []).append(record)
        except FlaxdigitsError as error:
            left_out[str(path)] = str(error)
    runs: dict[str, dict[str, Runs]] = {
        system.name: {
            protocol: _choose(system, protocol, recipe,
                              found.get((system.name, protocol), []), left_out)
            for protocol, recipe in system.recipes().items()}
        for system in systems}
    collection = Collection(runs, left_out)
    _check_same_data([record for _, record in collection.records()])
    return collection


def missing(runs: Runs, config: ExperimentConfig, seeds: Sequence[int]) -> list[int]:
    """The seeds that were run neither whole nor as far as `config` goes."""
    def is_enough(record: Record) -> bool:
        return extent(_config(record, runs.recipe)) in (extent(runs.recipe), extent(config))

    return [seed for seed in seeds if seed not in runs.diverged and not (
        seed in runs.records and is_enough(runs.records[seed]))]


def _paths(pattern: str) -> list[Path]:
    """The run folders and files of records that a pattern finds, itself or somewhere beneath."""
    tops = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    if not tops:
        raise FlaxdigitsError(f"--collect={pattern}: there is nothing of this name")
    paths = []
    for top in map(Path, tops):
        if top.is_file():
            paths += [top] if top.suffix == ".json" else []
            continue
        for folder, inner, files in os.walk(top):
            inner.sort()
            if "config.json" in files:
                paths.append(Path(folder))
                inner.clear()
            elif "replication.json" in files:  # a report, which keeps copies of what it counted
                inner[:] = [name for name in inner if name != KEPT]
            else:
                paths += [Path(folder) / name for name in sorted(files) if NAME.fullmatch(name)]
    return paths


def _read(path: Path) -> Record | None:
    """The record of a run folder or file; None of a run that has not ended."""
    if path.is_dir():
        folder = RunFolder(path)
        result, diverged = folder.result(), folder.diverged()
        if result is None and diverged is None:
            return None
        values = folder.recorded() | (
            {"diverged": diverged} if result is None else
            {"result": {name: value for name, value in result.items() if name not in CLOCKS}})
    else:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FlaxdigitsError(f"cannot be read: {error}") from error
    _check(values)
    return Record(path, values)


def _check(values: Any) -> None:
    """Raises FlaxdigitsError if this is no record of real data."""
    if not isinstance(values, dict) or not all(
            isinstance(values.get(name), dict) for name in ("config", "data")):
        raise FlaxdigitsError("is no record of a run: expected the fields config and data")
    result, ended = values.get("result"), values.get("result", values.get("diverged"))
    if not isinstance(ended, dict):
        raise FlaxdigitsError("is no record of a run: expected the field result or diverged")
    sources = {values["data"].get("source"), *([result.get("data_source")] if result else [])}
    if sources != {"real"}:
        raise FlaxdigitsError("was trained on drawn data, not the real")
    if result is None:
        return
    for name in FIGURES:
        value = result.get(name)
        if value is not None and not (
                isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1):
            raise FlaxdigitsError(f"result.{name} must be a fraction, got {value!r}")
    if result.get("seed") != values["config"].get("seed", 0):
        raise FlaxdigitsError("its result is of another seed than its config")
    for name in ("epochs", "steps", "train_examples"):
        if not isinstance(result.get(name), int | float):
            raise FlaxdigitsError(f"result.{name} must be a number, got {result.get(name)!r}")


def _protocol(record: Record, system: System) -> str:
    """By which of the system's protocols it was run; an error says why by none."""
    reasons = []
    for protocol, recipe in system.recipes().items():
        config = _config(record, recipe)
        reasons.append(differences(config, recipe))
        if reasons[-1]:
            continue
        if record.result is not None and recipe.train.steps is None and (
                record.result["epochs"] > recipe.train.epochs + 1e-6):
            raise FlaxdigitsError(
                f"is not the recipe: trained for {record.result['epochs']:g} epochs in place of "
                f"{recipe.train.epochs}")
        return protocol
    raise FlaxdigitsError(f"is not the recipe: {min(reasons, key=len)[0]}")


def _config(record: Record, recipe: ExperimentConfig) -> ExperimentConfig:
    return from_dict(record.values["config"], type(recipe.model))


def _choose(
    system: System, protocol: str, recipe: ExperimentConfig, found: Sequence[Record],
    left_out: dict[str, str],
) -> Runs:
    """The whole runs, or of partial ones those that went furthest; one of each seed."""
    def steps(record: Record) -> int:
        return record.result["steps"] if record.result else 0

    def is_whole(record: Record) -> bool:
        return extent(_config(record, recipe)) == extent(recipe)

    found = sorted(found, key=lambda record: (not is_whole(record), -steps(record)))
    best = next((record for record in found if record.result is not None), None)
    records: dict[int, Record] = {}
    for record in found:
        if record.result is None:
            continue
        how_far = extent(_config(record, recipe))
        if how_far != extent(_config(best, recipe)):
            left_out[str(record.path)] = "is partial, and others went further"
        elif record.seed not in records:
            records[record.seed] = record
        elif _figures(record) != _figures(records[record.seed]):
            left_out[str(record.path)] = (
                f"is another run of seed {record.seed}; {records[record.seed].path} counts")
    diverged = {record.seed for record in found
                if record.result is None and is_whole(record)} - records.keys()
    return Runs(system, protocol, recipe, records, tuple(sorted(diverged)))


def _figures(record: Record) -> list[float | None]:
    return [record.result.get(name) for name in FIGURES]


def _partial(
    config: ExperimentConfig, recipe: ExperimentConfig, result: dict[str, Any]
) -> str | None:
    if extent(config) == extent(recipe):
        return None
    told = []
    if extent(config)[:2] != extent(recipe)[:2]:
        told.append(f"{result['steps']:,} of {recipe.train.steps:,} steps" if recipe.train.steps
                    else f"{result['epochs']:.3g} of {recipe.train.epochs} epochs")
    if config.data.limit != recipe.data.limit:
        told.append(f"{result['train_examples']:,} training images")
    return ", ".join(told)


def _check_same_data(records: Sequence[Record]) -> None:
    first: dict[tuple, Record] = {}
    for record in records:
        data = record.values["data"]
        folder = record.values["config"].get("data", {}).get("folder")
        other = first.setdefault((data.get("dataset"), folder), record)
        if other.values["data"].get("fingerprint") != data.get("fingerprint"):
            raise FlaxdigitsError(
                f"{record.path} was trained on another {data.get('dataset')} than {other.path}: "
                "their fingerprints differ; collect one of them")
