"""Loads the configs of experiments and of runs."""

import dataclasses

from flaxdigits.api.arguments import PathLike, path_text
from flaxdigits.config import ExperimentConfig, validate
from flaxdigits.experiments import load_experiment, run_config
from flaxdigits.objectives import Distillation
from flaxdigits.overrides import apply_overrides
from flaxdigits.patterns import expand_user
from flaxdigits.training.run_folder import RunFolder


def experiment(name_or_path: PathLike, *overrides: str) -> ExperimentConfig:
    """Loads the config of an experiment and applies overrides.

    Args:
      name_or_path: the name of a built-in experiment, such as `chinese_cnn` (see
        `flaxdigits.list_experiments()`), or the path of an experiment file, ending in `.py`.
      *overrides: as for `--set`, such as `"train.epochs=5"` or `"model.filters=16,32,64"`.

    Raises:
      FlaxdigitsError: if there is no such experiment or field, or a value is invalid.
    """
    config = load_experiment(path_text(name_or_path, "name_or_path"))
    return absolute_paths(apply_overrides(config, overrides))


def recorded_experiment(
    workdir: PathLike, *overrides: str, experiment: PathLike | None = None
) -> ExperimentConfig:
    """Loads the config that a run folder records, for example to resume the run with `train`.

    Args:
      workdir: the run folder.
      *overrides: as for `experiment`.
      experiment: the experiment file of the run, if it has custom components and the file with
        which it was trained is gone or has changed.

    Raises:
      FlaxdigitsError: if the folder is not a run folder, its config is not valid, or a custom
        component is not registered.
    """
    return open_run(workdir, *overrides, experiment=experiment)[1]


def open_run(
    workdir: PathLike, *overrides: str, experiment: PathLike | None = None
) -> tuple[RunFolder, ExperimentConfig]:
    """Returns the folder of a run and its config; see `recorded_experiment`."""
    folder = RunFolder(expand_user(path_text(workdir, "workdir")))
    config = run_config(
        folder, None if experiment is None else path_text(experiment, "experiment"))
    # The step at which the run was paused the last time does not apply to a resumed run.
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, stop_after=None))
    return folder, absolute_paths(apply_overrides(config, overrides))


def moved_data(folder: PathLike | None, indices: PathLike | None) -> list[str]:
    """Returns the overrides for the current paths of a run's custom data and index file, if given.
    """
    paths = {"folder": folder, "indices": indices}
    return [f"data.{name}={path_text(path, f'data_{name}')}"
            for name, path in paths.items() if path is not None]


def validated(config: ExperimentConfig) -> ExperimentConfig:
    """Validates a config that a caller passed, and returns it with absolute paths.

    Raises:
      FlaxdigitsError: if it is not an `ExperimentConfig`, or a field is invalid; the message names
        the first such field.
    """
    return absolute_paths(validate(config))


def absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """Returns a config with absolute paths, to resume its run from any working directory."""
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
