"""What several modes do with their options: the config and the arguments of the calls."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from flaxdigits.api.arguments import PathLike, Source
from flaxdigits.api.experiment import experiment, recorded_experiment
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_trackers
from flaxdigits.training.trackers import Tracker


class DataArguments(TypedDict):
    """The arguments by which the library's calls find their data."""

    data: Source
    raw_data_dir: PathLike | None
    data_dir: PathLike | None


def data_arguments(options: Options) -> DataArguments:
    """What the flags say of the data."""
    return {"data": options.data, "raw_data_dir": options.raw_data_dir,
            "data_dir": options.data_dir}


def resolve_config(options: Options) -> ExperimentConfig:
    """The experiment's config with the overrides; without --experiment, the run folder's own.

    Raises:
      FlaxdigitsError: if neither is named, or the config is not valid.
    """
    if options.experiment is not None:
        return experiment(options.experiment, *options.overrides)
    if not options.workdirs:
        raise FlaxdigitsError("--experiment is missing: name one (--list shows them), as in "
                              "python launch.py --experiment=chinese_cnn")
    return recorded_experiment(options.workdir(), *options.overrides)


def moved_data_of(options: Options) -> dict[str, str]:
    """Returns `data_folder` and `data_indices`, as far as `--set data.folder=` and so on give them.

    They are where the custom data and the index file of a run are now.

    Raises:
      FlaxdigitsError: if another field is set: the mode is about a run as it was trained.
    """
    moved = {}
    for override in options.overrides:
        name, _, path = override.partition("=")
        if name.strip() not in ("data.folder", "data.indices"):
            raise FlaxdigitsError(
                f"--mode={options.mode} is about a run as it was trained: leave out --set {name} "
                "(only data.folder and data.indices may be in another place now)")
        moved[name.strip().replace(".", "_")] = path.strip()
    return moved


def print_json(value: Any) -> None:
    """Prints JSON that is valid in whatever encoding standard output has."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


def seeds_of(options: Options) -> tuple[int, ...] | None:
    """Those that --seeds names; None without it.

    Raises:
      FlaxdigitsError: if it names none.
    """
    from flaxdigits.studies.seeds import parse_seeds  # imports JAX

    return None if options.seeds is None else parse_seeds(options.seeds)


def own_trackers(options: Options) -> Callable[[Path], Sequence[Tracker]]:
    """Gives those of the experiment's file, new ones for every run."""
    named = options.experiment
    return lambda workdir: () if named is None else load_trackers(named)


def command_of(options: Options, *mode: str) -> str:
    """The command line that makes the same tables again, wherever the runs and the data are."""
    flags = {"ablation": options.ablation, "experiment": options.experiment,
             "data": None if options.data == "auto" else options.data, "seeds": options.seeds,
             "update": options.update}
    if options.mode == "folds" and options.experiment is None:  # of the run that lies there
        flags["workdir"] = options.workdir()
    return shlex.join([
        "python", "launch.py", *mode,
        *(f"--{name}={value}" for name, value in flags.items() if value is not None),
        *(f"--collect={pattern}" for pattern in options.collect),
        *(["--collect_only"] if options.collect_only else []),
        *([f"--executor={options.executor}", f"--cpus_per_run={options.cpus_per_run}",
           f"--gpus_per_run={options.gpus_per_run}"] if options.executor == "ray" else []),
        *(f"--set={override}" for override in options.overrides)])
