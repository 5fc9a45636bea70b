"""Configs: of an experiment, or of a run that was begun."""

import dataclasses
import os

from flaxdigits.api.arguments import PathLike
from flaxdigits.config import ExperimentConfig, ModelConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
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
    model_config = ModelConfig
    if experiment is not None:
        named = load_experiment(os.fspath(experiment)).model
        model_config = type(named)
    try:
        config = folder.config(model_config)
    except FlaxdigitsError as error:
        if experiment is not None or "unknown field model." not in str(error):
            raise
        raise FlaxdigitsError(
            f"{error}; if the architecture is your own, name its file with --experiment"
        ) from error
    if experiment is not None and named.name != config.model.name:
        raise FlaxdigitsError(
            f"{folder.path}: a run of the architecture {config.model.name}, and {experiment} has "
            f"{named.name}: leave out --experiment, or name the run's own file")
    # Where the run paused last is no wish to pause there again.
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, stop_after=None))
    return absolute_paths(apply_overrides(config, overrides))


def moved_data(folder: PathLike | None, indices: PathLike | None) -> list[str]:
    """Returns the overrides for the places where a run's data and index file are now, if given."""
    places = {"data.folder": folder, "data.indices": indices}
    return [f"{name}={os.fspath(place)}" for name, place in places.items() if place is not None]


def absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """The config with its folders made absolute, so that a run stands wherever it goes on from."""
    def absolute(path: str | None) -> str | None:
        return None if path is None else str(expand_user(path).absolute())

    data, train = config.data, config.train
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            data, folder=absolute(data.folder), indices=absolute(data.indices)),
        train=dataclasses.replace(train, init_from=absolute(train.init_from)))
