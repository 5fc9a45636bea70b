"""Converts options to configs and arguments of the API, for several modes."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from flaxdigits.api.arguments import PathLike, SourceName
from flaxdigits.api.experiment import experiment, recorded_experiment
from flaxdigits.cli.options import Options
from flaxdigits.command import program
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_trackers
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.trackers import Tracker


class DataArguments(TypedDict):
    """The arguments of the API that specify where to find data."""

    data: SourceName
    raw_data_dir: PathLike | None
    data_dir: PathLike | None


class MovedData(TypedDict, total=False):
    """The arguments of the API that specify where a run's custom data are now."""

    data_folder: str
    data_indices: str


def data_arguments(options: Options) -> DataArguments:
    """Returns the values of the flags about data."""
    return {"data": options.data, "raw_data_dir": options.raw_data_dir,
            "data_dir": options.data_dir}


def resolve_config(options: Options) -> ExperimentConfig:
    """Returns the config of --experiment, with the overrides.

    If the flag is not set, or names the copy of an experiment file in the run folder, the config is
    that of the run in --workdir.

    Raises:
      FlaxdigitsError: if neither flag is set, or the config is not valid.
    """
    if options.experiment is not None and not (
            options.workdirs and RunFolder(options.workdir()).is_code_copy(options.experiment)):
        return experiment(options.experiment, *options.overrides)
    if not options.workdirs:
        raise FlaxdigitsError("--experiment is missing: --list shows all experiments; an example "
                              "is python launch.py --experiment=chinese_cnn")
    return recorded_experiment(
        options.workdir(), *options.overrides, experiment=options.experiment)


def moved_data_of(options: Options) -> MovedData:
    """Returns the values of `--set data.folder=` and `--set data.indices=`.

    They are the current paths of a run's custom data and index file.

    Raises:
      FlaxdigitsError: if another field is set, since the mode uses the config of the run.
    """
    moved: MovedData = {}
    for override in options.overrides:
        name, _, path = override.partition("=")
        if name.strip() not in ("data.folder", "data.indices"):
            raise FlaxdigitsError(
                f"--mode={options.mode} uses the config of the run: leave out --set {name} (only "
                "data.folder and data.indices can be set, if they have moved)")
        moved[name.strip().replace(".", "_")] = path.strip()
    return moved


def print_json(value: Any) -> None:
    """Prints JSON, with escapes if standard output cannot encode its characters."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


def seeds_of(options: Options) -> tuple[int, ...] | None:
    """Returns the seeds of --seeds, or None if the flag is not set.

    Raises:
      FlaxdigitsError: if its value is not valid.
    """
    return None if options.seeds is None else parse_seeds(options.seeds)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parses seeds such as `0..9`, `0,3,7` or `0..2,7`.

    Raises:
      FlaxdigitsError: if the text has another form, a range is empty or has more than 10,000
        seeds, a seed is too large, or the text contains a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:\.\.(\d{1,10}))?\s*", part)
        if match is None:
            raise FlaxdigitsError(
                f"--seeds must be integers below 2**32 such as 0..9 or 0,3,7, got {text!r}")
        first, last = match.groups()
        span = range(int(first), int(last or first) + 1)
        if not span:
            raise FlaxdigitsError(f"--seeds: the range {part.strip()} is empty")
        if span.stop > 2**32:
            raise FlaxdigitsError(f"--seeds: a seed must be below 2**32, got {part.strip()}")
        if len(span) > 10_000:
            raise FlaxdigitsError(
                f"--seeds: a range can have at most 10,000 seeds, got {part.strip()}")
        seeds += span
    if len(set(seeds)) < len(seeds):
        raise FlaxdigitsError(f"--seeds contains a seed twice: {text}")
    return tuple(seeds)


def experiment_trackers(options: Options) -> Callable[[Path], Sequence[Tracker]]:
    """Returns a function that creates the trackers of the experiment file for each run."""
    experiment = options.experiment
    return lambda workdir: () if experiment is None else load_trackers(experiment)


def command_of(options: Options, *mode: str) -> str:
    """Returns a command line that creates the same tables, without the folders of runs and data."""
    flags = {"ablation": options.ablation, "experiment": options.experiment,
             "data": None if options.data == "auto" else options.data, "seeds": options.seeds,
             "update": options.update}
    if options.mode == "folds" and options.experiment is None:  # the config is read from a run
        flags["workdir"] = options.workdir()
    return shlex.join([
        *program(options.program), *mode,
        *(f"--{name}={value}" for name, value in flags.items() if value is not None),
        *(f"--collect={pattern}" for pattern in options.collect),
        *(["--collect_only"] if options.collect_only else []),
        *([f"--executor={options.executor}", f"--cpus_per_run={options.cpus_per_run}",
           f"--gpus_per_run={options.gpus_per_run}"] if options.executor == "ray" else []),
        *(f"--set={override}" for override in options.overrides)])
