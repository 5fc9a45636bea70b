"""Which finished runs count for a replication: found anywhere, matched with the recipes."""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig, from_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import find_paths
from flaxdigits.studies.records import Record, read_record
from flaxdigits.studies.replication import FIGURES, HELD_OUT, ORIGINAL, System, differences, extent

KEPT = "results"  # folder of records beside a report
NAME = re.compile(rf"({ORIGINAL}|{HELD_OUT})-seed\d+\.json")


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """The runs by one protocol that count.

    Attributes:
      system: whose.
      protocol: `original` or `held_out`.
      recipe: its config.
      records: of runs that ended with a result, by seed.
      diverged: the seeds whose loss stopped being finite.
      found: all that were run by it, partial ones and those that diverged too.
    """

    system: System
    protocol: str
    recipe: ExperimentConfig
    records: dict[int, Record]
    diverged: tuple[int, ...]
    found: tuple[Record, ...]

    def values(self, figure: str) -> dict[int, float]:
        """A figure of `result.json` by seed; empty if the protocol does not measure it."""
        return {seed: record.result[figure] for seed, record in self.records.items()
                if record.result.get(figure) is not None}

    @property
    def partial(self) -> str | None:
        """How much of the recipe was run, such as `4 of 100 epochs`; None if all of it."""
        for record in self.records.values():  # which are all alike in this
            return _partial(from_dict(record.values["config"]), self.recipe, record.result)
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
            record = read_record(path)
            system = record and known.get(str(record.values["config"].get("experiment")))
            if system is None:
                continue
            found.setdefault((system.name, _protocol(record, system)), []).append(record)
        except FlaxdigitsError as error:
            left_out[str(path)] = str(error).removeprefix(f"{path}: ")
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
    enough = extent(runs.recipe), extent(config)
    done = {record.seed for record in runs.found
            if extent(from_dict(record.values["config"])) in enough}
    return [seed for seed in seeds if seed not in done]


def _paths(pattern: str) -> list[Path]:
    """The run folders and files of records that a pattern finds, itself or somewhere beneath."""
    tops = find_paths(pattern)
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


def _protocol(record: Record, system: System) -> str:
    """By which of the system's protocols it was run; an error says why by none."""
    reasons = []
    for protocol, recipe in system.recipes().items():
        config = from_dict(record.values["config"])
        reasons.append(differences(config, recipe))
        if reasons[-1]:
            continue
        unit = "epochs" if recipe.train.steps is None else "steps"
        most = getattr(recipe.train, unit)
        if record.result is not None and record.result[unit] > most + 1e-6:
            raise FlaxdigitsError(f"is not the recipe: trained for {record.result[unit]:g} {unit} "
                                  f"in place of {most}")
        return protocol
    raise FlaxdigitsError(f"is not the recipe: {min(reasons, key=len)[0]}")


def _choose(
    system: System, protocol: str, recipe: ExperimentConfig, found: Sequence[Record],
    left_out: dict[str, str],
) -> Runs:
    """The whole runs, or of partial ones those that went furthest; one of each seed."""
    def steps(record: Record) -> int:
        return record.result["steps"] if record.result else 0

    def is_whole(record: Record) -> bool:
        return extent(from_dict(record.values["config"])) == extent(recipe)

    found = sorted(found, key=lambda record: (not is_whole(record), -steps(record)))
    best = next((record for record in found if record.result is not None), None)
    records: dict[int, Record] = {}
    for record in found:
        if record.result is None:
            continue
        how_far = extent(from_dict(record.values["config"]))
        if how_far != extent(from_dict(best.values["config"])):
            left_out[str(record.path)] = "is partial, and others went further"
        elif record.seed not in records:
            records[record.seed] = record
        elif _figures(record) != _figures(records[record.seed]):
            left_out[str(record.path)] = (
                f"is another run of seed {record.seed}; {records[record.seed].path} counts")
    diverged = {record.seed for record in found
                if record.result is None and is_whole(record)} - records.keys()
    return Runs(system, protocol, recipe, records, tuple(sorted(diverged)), tuple(found))


def _figures(record: Record) -> list[float | None]:
    return [record.result.get(name) for name in FIGURES]


def _partial(
    config: ExperimentConfig, recipe: ExperimentConfig, result: dict[str, Any]
) -> str | None:
    if extent(config) == extent(recipe):
        return None
    parts = []
    if extent(config)[:2] != extent(recipe)[:2]:
        parts.append(f"{result['steps']:,} of {recipe.train.steps:,} steps" if recipe.train.steps
                    else f"{result['epochs']:.3g} of {recipe.train.epochs} epochs")
    if config.data.limit != recipe.data.limit:
        parts.append(f"{result['train_examples']:,} training images")
    return ", ".join(parts)


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
