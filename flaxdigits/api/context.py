"""What several calls share: where the data and the run are, the console, what is checked first."""

import logging
import os
import shutil
import signal
from pathlib import Path
from typing import get_args

import jax
from rich.console import Console
from rich.table import Table

from flaxdigits.api.arguments import PathLike, Source, SourceName
from flaxdigits.api.experiment import absolute_paths
from flaxdigits.config import DataConfig, ExperimentConfig, validate
from flaxdigits.data.arrays import DataArrays
from flaxdigits.data.dataset import (
    DataLocations,
    Dataset,
    dataset_of_arrays,
    load_dataset,
    with_index_file,
)
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError, quoted
from flaxdigits.models import build_model
from flaxdigits.patterns import expand_user
from flaxdigits.studies.ablation import Load
from flaxdigits.training.run_folder import RunFolder, data_differences

_log = logging.getLogger(__name__)


def load_data(
    config: ExperimentConfig, data: Source = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None,
) -> Dataset:
    """Returns the data of an experiment.

    Args:
      config: of the experiment.
      data: `real` refuses synthetic data, `drawn` wants them, `auto` falls back on them; or the
        arrays of `data.dataset=arrays`.
      raw_data_dir: folder of the raw files; None: that of the environment's FLAXDIGITS_RAW_DATA,
        else the network.
      data_dir: folder of prepared data; None: that of TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      FlaxdigitsError: if there are none, they are damaged, or cannot be written.
    """
    if isinstance(data, DataArrays):
        if config.data.dataset != "arrays":
            raise FlaxdigitsError(
                f"data is a DataArrays, which needs data.dataset=arrays, got {config.data.dataset}")
        dataset = dataset_of_arrays(config.data, data)
    else:
        dataset = load_dataset(config.data, data_locations(data, raw_data_dir, data_dir))
    _check_validation(config, dataset)
    return dataset


def _check_validation(config: ExperimentConfig, dataset: Dataset) -> None:
    """Raises FlaxdigitsError if `checkpoint.report=best` has no validation part to go by."""
    if (config.checkpoint.report == "best" and config.data.split == "indices"
            and "validation" not in split_indices(config.data, dataset)):
        raise FlaxdigitsError(
            f"checkpoint.report=best needs a validation split, and {config.data.indices} has none: "
            "add validation, or use report=last")


def data_locations(
    data: SourceName = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None,
) -> DataLocations:
    """Where `load_data`, whose arguments these are, looks."""
    if data not in get_args(SourceName):
        raise FlaxdigitsError(f"data must be one of {', '.join(get_args(SourceName))}, or a "
                              f"flaxdigits.DataArrays, got {quoted(data)}")
    raw = raw_data_dir or os.environ.get("FLAXDIGITS_RAW_DATA")
    return DataLocations(
        expand_user(raw) if raw else None,
        expand_user(data_dir) if data_dir else None, data)


def load_data_of_run(
    config: ExperimentConfig, folder: RunFolder, data: Source = "auto",
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
) -> Dataset:
    """`load_data` of a run; `auto` is the source that it was trained on.

    Raises:
      FlaxdigitsError: also if the data of the same source are not the run's.
    """
    recorded = folder.data()
    dataset = load_data(
        config, recorded["source"] if data == "auto" else data, raw_data_dir, data_dir)
    changes = data_differences(recorded, dataset.identity())
    if dataset.source == recorded["source"] and changes:
        where = ("data=" if config.data.dataset == "arrays" else
                 "--set data.indices=" if changes[0].startswith("data.indices ") else
                 "--set data.folder=" if config.data.folder else "--data_dir or --raw_data_dir")
        raise FlaxdigitsError(
            f"{folder.path}: was trained on other data: {'; '.join(changes)}; name the data of "
            f"the run with {where}")
    return dataset


def loader(
    data: Source, raw_data_dir: PathLike | None, data_dir: PathLike | None
) -> Load:
    """`load_data`, reading each data set once."""
    loaded: dict[DataConfig, Dataset] = {}

    def load_for(config: ExperimentConfig) -> Dataset:
        read = config.data  # the fields that decide which data are read
        key = DataConfig(dataset=read.dataset, folder=read.folder, image_size=read.image_size)
        if key not in loaded:
            loaded[key] = load_data(config, data, raw_data_dir, data_dir)
        dataset = with_index_file(loaded[key], config.data)
        _check_validation(config, dataset)
        return dataset

    return load_for


def checked(config: ExperimentConfig) -> ExperimentConfig:
    """A config that may have been made by hand: valid, with absolute folders.

    Raises:
      FlaxdigitsError: naming the first field that is wrong.
    """
    return absolute_paths(validate(config))


def check_before_data(config: ExperimentConfig, workdir: Path) -> None:
    """Checks what needs no data: the architecture's numbers, and a new run's `train.init_from`.

    Raises:
      FlaxdigitsError: if one of them is wrong.
    """
    build_model(config.model, num_classes=1)
    if config.train.init_from is not None and not (workdir / "config.json").exists():
        RunFolder(Path(config.train.init_from)).data()


def run_folder_path(workdir: PathLike | None, config: ExperimentConfig) -> Path:
    """The folder that was named, or runs/<experiment>."""
    return Path("runs") / config.experiment if workdir is None else expand_user(workdir)


def new_run_folder(workdir: PathLike | None, config: ExperimentConfig) -> Path:
    """`run_folder_path`, in which something is to be trained.

    Raises:
      FlaxdigitsError: if no run can be saved in a folder of this name.
    """
    folder = run_folder_path(workdir, config)
    RunFolder(folder).check_name()
    if folder.exists() and not folder.is_dir():
        raise FlaxdigitsError(f"{folder}: is a file; name another --workdir")
    return folder


def make_console(quiet: bool = False, stderr: bool = False) -> Console:
    """The terminal, a file or a pipe, or plain lines in a notebook.

    Lines are never wrapped, and what stands in brackets or between colons is printed as it is.
    """
    return Console(quiet=quiet, stderr=stderr, highlight=False, markup=False, emoji=False,
                   soft_wrap=True, force_jupyter=False)


def print_table(console: Console, table: Table) -> None:
    """Fits a terminal; in a file or a pipe, a table is as wide as it needs to be."""
    if not console.is_terminal:
        unbounded = console.options.update(max_width=10_000)
        table.width = console.measure(table, options=unbounded).maximum
    console.print(table, soft_wrap=False, crop=False)


def report_pause(console: Console, received: int | None) -> None:
    """Says what paused several runs: a signal, or None for `train.stop_after`."""
    cause = (f"{signal.Signals(received).name}; the same command" if received else
            "train.stop_after; the same command without it, or with a later one,")
    console.print(f"paused by {cause} resumes it")


def check_devices() -> None:
    """Starts JAX, and logs a warning if it computes on the CPU beside an NVIDIA GPU.

    Raises:
      FlaxdigitsError: if `JAX_PLATFORMS` (or `jax.config.jax_platforms`) names a platform that is
        unknown or has no device here.
    """
    platforms = jax.config.jax_platforms
    try:
        jax.devices()
    except Exception as error:  # JAX raises several kinds, an AssertionError among them
        raise FlaxdigitsError(
            f"JAX finds no device for JAX_PLATFORMS={platforms or ''}: name a platform that this "
            "machine has, such as cpu, or leave it unset") from error
    is_asked = "cpu" in (jax.config.jax_platforms or "")
    if jax.default_backend() == "cpu" and not is_asked and shutil.which("nvidia-smi"):
        _log.warning("this machine has an NVIDIA GPU that JAX does not see; "
                     "pip install -e '.[cuda]' lets it")
