"""Collects the finished runs of a replication: finds them and matches them with the recipes."""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig, from_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import find_paths
from flaxdigits.plurals import counted
from flaxdigits.studies.records import RunRecord, read_record
from flaxdigits.studies.replication import (
    ACCURACIES,
    HELD_OUT_PROTOCOL,
    ORIGINAL_PROTOCOL,
    System,
    differences,
    extent,
)

RECORDS_FOLDER = "results"  # in the folder of a report
RECORD_NAME = re.compile(rf"({ORIGINAL_PROTOCOL}|{HELD_OUT_PROTOCOL})-seed\d+\.json")


@dataclasses.dataclass(frozen=True, eq=False)
class ProtocolRuns:
    """The runs of a system that follow one protocol.

    Attributes:
      system: the system.
      protocol: `original` or `held_out`.
      recipe: the config of the protocol.
      records: the records that count, by seed: one of each seed that finished.
      diverged: the seeds that diverged.
      found: all runs that follow the protocol, including partial and diverged ones.
    """

    system: System
    protocol: str
    recipe: ExperimentConfig
    records: dict[int, RunRecord]
    diverged: tuple[int, ...]
    found: tuple[RunRecord, ...]

    def values(self, metric: str) -> dict[int, float]:
        """Returns a metric of `result.json` by seed; empty if no run has this metric."""
        return {seed: record.result[metric] for seed, record in self.records.items()
                if record.result.get(metric) is not None}

    @property
    def partial(self) -> str | None:
        """How much of the recipe was run, such as `4 of 100 epochs`; None if all of it."""
        for record in self.records.values():  # any of them: all ran the same part of the recipe
            assert record.result is not None  # only finished runs count
            return _partial(from_dict(record.values["config"]), self.recipe, record.result)
        return None


@dataclasses.dataclass(frozen=True)
class Collection:
    """The finished runs of a replication.

    Attributes:
      runs: the runs by experiment and protocol.
      skipped: the reasons why runs do not count, by their paths.
    """

    runs: dict[str, dict[str, ProtocolRuns]]
    skipped: dict[str, str]

    def records(self) -> Iterator[tuple[str, RunRecord]]:
        """Yields the records that count, each with the relative path of its file."""
        for name, protocols in self.runs.items():
            for protocol, runs in protocols.items():
                for seed, record in sorted(runs.records.items()):
                    yield f"{name}/{protocol}-seed{seed}.json", record


def collect(systems: Sequence[System], patterns: Sequence[str]) -> Collection:
    """Finds the finished runs of the systems' recipes.

    Complete runs of a protocol count. If there are none, those with the most steps count.

    Args:
      systems: the systems to collect.
      patterns: patterns of run folders, of record files, or of folders that contain them.

    Raises:
      FlaxdigitsError: if a pattern matches nothing, or the runs that count were trained on
        different data.
    """
    skipped: dict[str, str] = {}
    known = {system.name: system for system in systems}
    found: dict[tuple[str, str], list[RunRecord]] = {}
    for path in dict.fromkeys(path for pattern in patterns for path in _paths(pattern)):
        try:
            record = read_record(path)
            system = record and known.get(str(record.values["config"].get("experiment")))
            if record is None or system is None:
                continue
            found.setdefault((system.name, _protocol(record, system)), []).append(record)
        except FlaxdigitsError as error:
            skipped[str(path)] = str(error).removeprefix(f"{path}: ")
    runs: dict[str, dict[str, ProtocolRuns]] = {
        system.name: {
            protocol: _choose(system, protocol, recipe,
                              found.get((system.name, protocol), []), skipped)
            for protocol, recipe in system.recipes().items()}
        for system in systems}
    collection = Collection(runs, skipped)
    _check_same_data([record for _, record in collection.records()])
    return collection


def missing_seeds(runs: ProtocolRuns, config: ExperimentConfig, seeds: Sequence[int]) -> list[int]:
    """Returns the seeds without a run that has the length of the recipe or of `config`.

    Both the number of steps or epochs and `data.limit` must be the same.
    """
    sufficient = extent(runs.recipe), extent(config)
    done = {record.seed for record in runs.found
            if extent(from_dict(record.values["config"])) in sufficient}
    return [seed for seed in seeds if seed not in done]


def _paths(pattern: str) -> list[Path]:
    """Returns the run folders and record files that match a pattern or are in a matching folder."""
    matches = find_paths(pattern)
    if not matches:
        raise FlaxdigitsError(f"collect={pattern}: no file or folder matches")
    paths = []
    for top in map(Path, matches):
        if top.is_file():
            paths += [top] if top.suffix == ".json" else []
            continue
        for folder, subfolders, files in os.walk(top):
            subfolders.sort()
            if "config.json" in files:
                paths.append(Path(folder))
                subfolders.clear()
            elif "replication.json" in files:  # a report, with copies of the records it is based on
                subfolders[:] = [name for name in subfolders if name != RECORDS_FOLDER]
            else:
                paths += [Path(folder) / name
                          for name in sorted(files) if RECORD_NAME.fullmatch(name)]
    return paths


def _protocol(record: RunRecord, system: System) -> str:
    """Returns the protocol that a run follows.

    Raises:
      FlaxdigitsError: if it follows none; the message contains the reason.
    """
    reasons = []
    for protocol, recipe in system.recipes().items():
        config = from_dict(record.values["config"])
        reasons.append(differences(config, recipe))
        if reasons[-1]:
            continue
        unit = "epochs" if recipe.train.steps is None else "steps"
        length = getattr(recipe.train, unit)
        if record.result is not None and record.result[unit] > length + 1e-6:
            raise FlaxdigitsError(f"does not follow the recipe: was trained for "
                                  f"{record.result[unit]:g} {unit} instead of {length}")
        return protocol
    raise FlaxdigitsError(f"does not follow the recipe: {min(reasons, key=len)[0]}")


def _choose(
    system: System, protocol: str, recipe: ExperimentConfig, found: Sequence[RunRecord],
    skipped: dict[str, str],
) -> ProtocolRuns:
    """Chooses the runs that count: one of each seed.

    They are the complete runs, or, if there are none, those with the most steps. The reasons why
    the other runs do not count are added to `skipped`.
    """
    def steps(record: RunRecord) -> int:
        return record.result["steps"] if record.result else 0

    def is_complete(record: RunRecord) -> bool:
        return extent(from_dict(record.values["config"])) == extent(recipe)

    found = sorted(found, key=lambda record: (not is_complete(record), -steps(record)))
    best = next((record for record in found if record.result is not None), None)
    records: dict[int, RunRecord] = {}
    for record in found:
        if record.result is None:
            continue
        if extent(from_dict(record.values["config"])) != extent(from_dict(best.values["config"])):
            skipped[str(record.path)] = "is partial, and other runs have more steps or data"
        elif record.seed not in records:
            records[record.seed] = record
        elif _accuracies(record) != _accuracies(records[record.seed]):
            skipped[str(record.path)] = (
                f"is another run of seed {record.seed}; {records[record.seed].path} counts")
    diverged = {record.seed for record in found
                if record.result is None and is_complete(record)} - records.keys()
    return ProtocolRuns(system, protocol, recipe, records, tuple(sorted(diverged)), tuple(found))


def _accuracies(record: RunRecord) -> list[float | None]:
    return [record.result.get(name) for name in ACCURACIES]


def _partial(
    config: ExperimentConfig, recipe: ExperimentConfig, result: dict[str, Any]
) -> str | None:
    """Returns how much of the recipe a run has trained; None if all of it."""
    if extent(config) == extent(recipe):
        return None
    parts = []
    if extent(config)[:2] != extent(recipe)[:2]:
        parts.append(f"{result['steps']:,} of {recipe.train.steps:,} steps" if recipe.train.steps
                    else f"{result['epochs']:.3g} of {counted(recipe.train.epochs, 'epoch')}")
    if config.data.limit != recipe.data.limit:
        parts.append(f"{result['train_examples']:,} training images")
    return ", ".join(parts)


def _check_same_data(records: Sequence[RunRecord]) -> None:
    """Raises FlaxdigitsError if runs on the same data set used different versions of it."""
    first: dict[tuple, RunRecord] = {}
    for record in records:
        data = record.values["data"]
        folder = record.values["config"].get("data", {}).get("folder")
        other = first.setdefault((data.get("dataset"), folder), record)
        if other.values["data"].get("fingerprint") != data.get("fingerprint"):
            raise FlaxdigitsError(
                f"{record.path} and {other.path} were trained on different versions of "
                f"{data.get('dataset')}: their fingerprints differ; collect only the runs of one "
                "version")
