"""Returns the config of an experiment, or of a run."""

import dataclasses
import os

from flaxdigits.api.arguments import PathLike
from flaxdigits.config import ExperimentConfig, validate
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.objectives import Distillation
from flaxdigits.overrides import apply_overrides
from flaxdigits.patterns import expand_user
from flaxdigits.training.run_folder import RunFolder


def experiment(name_or_path: PathLike, *overrides: str) -> ExperimentConfig:
    """Loads the config of an experiment and applies overrides.

    Args:
      name_or_path: the name of a shipped experiment, such as `chinese_cnn` (see
        `flaxdigits.list_experiments()`), or the path of an experiment file, ending in `.py`.
      *overrides: as for `--set`, such as `"train.epochs=5"` or `"model.filters=16,32,64"`.

    Raises:
      FlaxdigitsError: if there is no such experiment or field, or a value is invalid.
    """
    return absolute_paths(apply_overrides(load_experiment(os.fspath(name_or_path)), overrides))


def recorded_experiment(
    workdir: PathLike, *overrides: str, experiment: PathLike | None = None
) -> ExperimentConfig:
    """Loads the config of a run, for example to resume it with `train`.

    Args:
      workdir: the run folder.
      *overrides: as for `experiment`.
      experiment: the experiment file of the run, if it registers a custom model or component.

    Raises:
      FlaxdigitsError: if the folder is not a run folder, or its config is not valid.
    """
    folder = RunFolder(expand_user(workdir))
    model = None if experiment is None else load_experiment(os.fspath(experiment)).model
    config = folder.config()
    if model is not None and model.name != config.model.name:
        raise FlaxdigitsError(
            f"{folder.path}: the model of the run is {config.model.name}, but {experiment} has "
            f"{model.name}: pass the experiment file of the run, or leave out --experiment")
    # The step at which the run was paused the last time does not apply to a resumed run.
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, stop_after=None))
    return absolute_paths(apply_overrides(config, overrides))


def moved_data(folder: PathLike | None, indices: PathLike | None) -> list[str]:
    """Returns the overrides for the current paths of a run's custom data and index file, if given.
    """
    paths = {"data.folder": folder, "data.indices": indices}
    return [f"{name}={os.fspath(path)}" for name, path in paths.items() if path is not None]


def validated(config: ExperimentConfig) -> ExperimentConfig:
    """Validates a config that a user may have created, and makes its paths absolute.

    Raises:
      FlaxdigitsError: naming the first invalid field.
    """
    return absolute_paths(validate(config))


def absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """Makes the paths in a config absolute, so that a run can be resumed from any folder."""
    def absolute(path: str | None) -> str | None:
        return None if path is None else str(expand_user(path).absolute())

    data, train, objective = config.data, config.train, config.train.objective
    if isinstance(objective, Distillation):
        objective = dataclasses.replace(objective, teacher=absolute(objective.teacher))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            data, folder=absolute(data.folder), indices=absolute(data.indices)),
        train=dataclasses.replace(
            train, init_from=absolute(train.init_from), objective=objective))
