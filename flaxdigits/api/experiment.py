"""Configs: of an experiment, or of a run that was begun."""

import dataclasses
import os

from flaxdigits.api.arguments import PathLike
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.objectives import Distillation
from flaxdigits.overrides import apply_overrides
from flaxdigits.patterns import expand_user
from flaxdigits.training.run_folder import RunFolder


def experiment(name_or_path: PathLike, *overrides: str) -> ExperimentConfig:
    """The config of a shipped experiment, or of a file of your own, with fields changed.

    Args:
      name_or_path: like `chinese_cnn` (`flaxdigits.list_experiments()` names all), or the path
        of a file with a `get_config()`, ending in `.py`.
      *overrides: as after `--set`: `"train.epochs=5"`, `"model.filters=16,32,64"`.

    Raises:
      FlaxdigitsError: if there is no such experiment or field, or a value does not fit.
    """
    return absolute_paths(apply_overrides(load_experiment(os.fspath(name_or_path)), overrides))


def recorded_experiment(
    workdir: PathLike, *overrides: str, experiment: PathLike | None = None
) -> ExperimentConfig:
    """The config of the run in a folder: what `train` needs to go on with it.

    Args:
      workdir: the run folder.
      *overrides: as for `experiment`.
      experiment: the file of the run's architecture, if it is one of your own.

    Raises:
      FlaxdigitsError: if this is not a run folder, or its config is not valid.
    """
    folder = RunFolder(expand_user(workdir))
    named = None if experiment is None else load_experiment(os.fspath(experiment)).model
    config = folder.config()
    if named is not None and named.name != config.model.name:
        raise FlaxdigitsError(
            f"{folder.path}: a run of the architecture {config.model.name}, and {experiment} has "
            f"{named.name}: leave out --experiment, or name the run's own file")
    # Where the run paused last is no wish to pause there again.
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, stop_after=None))
    return absolute_paths(apply_overrides(config, overrides))


def moved_data(folder: PathLike | None) -> list[str]:
    """Returns the override that names the place where a run's data lie now; none of None."""
    return [] if folder is None else [f"data.folder={os.fspath(folder)}"]


def absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """The config with its folders made absolute, so that a run stands wherever it goes on from."""
    data, train = config.data, config.train
    if data.folder is not None:
        folder = str(expand_user(data.folder).absolute())
        config = dataclasses.replace(config, data=dataclasses.replace(data, folder=folder))
    if train.init_from is not None:
        init_from = str(expand_user(train.init_from).absolute())
        config = dataclasses.replace(config, train=dataclasses.replace(train, init_from=init_from))
    if isinstance(train.objective, Distillation) and train.objective.teacher is not None:
        teacher = str(expand_user(train.objective.teacher).absolute())
        objective = dataclasses.replace(train.objective, teacher=teacher)
        config = dataclasses.replace(
            config, train=dataclasses.replace(config.train, objective=objective))
    return config
