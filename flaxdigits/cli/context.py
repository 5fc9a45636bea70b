"""What several modes do with their options: find the config, the run folder and the data."""

import dataclasses
import logging
import shutil
import typing
from pathlib import Path

from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.run_folder import RunFolder

if typing.TYPE_CHECKING:
    from flaxdigits.data.dataset import DataLocations, Dataset

_log = logging.getLogger(__name__)


def resolve_config(options: Options) -> ExperimentConfig:
    """The experiment's config with the overrides; without --experiment, the run folder's own.

    Raises:
      FlaxdigitsError: if neither is named, or the config is not valid.
    """
    if options.experiment is not None:
        return absolute_paths(
            apply_overrides(load_experiment(options.experiment), options.overrides))
    if not options.workdirs:
        raise FlaxdigitsError("--experiment is missing: name one (--list shows them), as in "
                              "python launch.py --experiment=chinese_cnn")
    recorded = recorded_config(options)
    # Where the run paused last is no wish to pause there again.
    recorded = dataclasses.replace(
        recorded, train=dataclasses.replace(recorded.train, stop_after=None))
    return apply_overrides(recorded, options.overrides)


def absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """The config with its folders made absolute, so that a run stands wherever it goes on from."""
    data, train = config.data, config.train
    if data.folder is not None:
        folder = str(Path(data.folder).expanduser().absolute())
        config = dataclasses.replace(config, data=dataclasses.replace(data, folder=folder))
    if train.init_from is not None:
        init_from = str(Path(train.init_from).expanduser().absolute())
        config = dataclasses.replace(config, train=dataclasses.replace(train, init_from=init_from))
    return config


def check_before_data(config: ExperimentConfig, workdir: Path) -> None:
    """Checks what needs no data: the architecture's numbers, and a new run's `train.init_from`.

    Raises:
      FlaxdigitsError: if one of them is wrong.
    """
    from flaxdigits.models import build_model

    build_model(config.model, num_classes=1)
    if config.train.init_from is not None and not (workdir / "config.json").exists():
        RunFolder(Path(config.train.init_from)).data()


def recorded_config(options: Options) -> ExperimentConfig:
    """The config of the run in --workdir; --experiment names the file of an own architecture."""
    folder = RunFolder(options.workdir())
    if options.experiment is None:
        try:
            return folder.config()
        except FlaxdigitsError as error:
            if "unknown field model." not in str(error):
                raise
            raise FlaxdigitsError(
                f"{error}; if the architecture is your own, name its file with --experiment"
            ) from error
    return folder.config(type(load_experiment(options.experiment).model))


def run_folder_path(options: Options, config: ExperimentConfig) -> Path:
    """--workdir, or runs/<experiment>."""
    return options.workdir() if options.workdirs else Path("runs") / config.experiment


def load_data(config: ExperimentConfig, options: Options, source: str | None = None) -> "Dataset":
    """The config's data from where the options say; `source` overrules --data."""
    from flaxdigits.data.dataset import load_dataset

    return load_dataset(config.data, data_locations(options, source))


def data_locations(options: Options, source: str | None = None) -> "DataLocations":
    """Where the options say that data lie; `source` overrules --data."""
    from flaxdigits.data.dataset import DataLocations

    return DataLocations(options.raw_data_dir, options.data_dir, source or options.data)


def load_data_of_run(
    config: ExperimentConfig, options: Options, source: str | None = None
) -> "Dataset":
    """The data that the run in --workdir was trained on; `source` real or drawn overrules its own.

    Raises:
      FlaxdigitsError: if the data of the same source are not the run's.
    """
    folder = RunFolder(options.workdir())
    recorded = folder.data()
    dataset = load_data(config, options, source or recorded["source"])
    if dataset.source == recorded["source"] and dataset.fingerprint != recorded["fingerprint"]:
        raise FlaxdigitsError(
            f"{folder.path}: trained on data of fingerprint {recorded['fingerprint']}, and this "
            f"{dataset.name} has {dataset.fingerprint}; point --data_dir or --raw_data_dir to "
            "the data of the run")
    return dataset


def warn_of_unused_gpu() -> None:
    """Says so when there is an NVIDIA GPU and JAX computes on the CPU."""
    import jax

    is_asked = "cpu" in (jax.config.jax_platforms or "")
    if jax.default_backend() == "cpu" and not is_asked and shutil.which("nvidia-smi"):
        _log.warning("this machine has an NVIDIA GPU that JAX does not see; "
                     "pip install -e '.[cuda]' lets it")
