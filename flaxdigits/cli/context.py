"""What several modes do with their options: find the config, and where the data are."""

from typing import TypedDict

from flaxdigits.api.arguments import PathLike, Source
from flaxdigits.api.experiment import experiment, recorded_experiment
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError


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
