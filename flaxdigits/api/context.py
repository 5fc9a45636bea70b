"""What several calls share: where the data and the run are, the console, what is checked first."""

import functools
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import get_args

import jax
from rich.console import Console
from rich.table import Table

from flaxdigits.api.arguments import PathLike, Source
from flaxdigits.api.experiment import absolute_paths
from flaxdigits.config import ExperimentConfig, validate
from flaxdigits.data.dataset import DataLocations, Dataset, load_dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models import build_model
from flaxdigits.patterns import expand_user
from flaxdigits.studies.ablation import Load
from flaxdigits.training.parallel import first_line
from flaxdigits.training.run_folder import RunFolder, data_differences

_log = logging.getLogger(__name__)


def load_data(
    config: ExperimentConfig, data: Source = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None,
) -> Dataset:
    """The config's data.

    Args:
      config: of the experiment.
      data: `real` refuses characters that the framework draws, `drawn` wants them, `auto` falls
        back on them.
      raw_data_dir: folder of the raw files; None: that of the environment's FLAXDIGITS_RAW_DATA,
        else the network.
      data_dir: folder of prepared data; None: that of TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      FlaxdigitsError: if there are none, they are damaged, or cannot be written.
    """
    return load_dataset(config.data, data_locations(data, raw_data_dir, data_dir))


def data_locations(
    data: Source = "auto", raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None
) -> DataLocations:
    """Where `load_data`, whose arguments these are, looks."""
    if data not in get_args(Source):
        raise FlaxdigitsError(f"data must be one of {', '.join(get_args(Source))}, got {data!r}")
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
        where = ("--set data.folder=" if config.data.folder else "--data_dir or --raw_data_dir")
        raise FlaxdigitsError(
            f"{folder.path}: was trained on other data: {'; '.join(changes)}; name the data of "
            f"the run with {where}")
    return dataset


def loader(
    data: Source, raw_data_dir: PathLike | None, data_dir: PathLike | None
) -> Load:
    """`load_data`, reading each data set once."""
    @functools.cache
    def load(name: str, folder: str | None, image_size: int | None) -> Dataset:
        return load_data(known[name, folder, image_size], data, raw_data_dir, data_dir)

    known: dict[tuple[str, str | None, int | None], ExperimentConfig] = {}

    def load_for(config: ExperimentConfig) -> Dataset:
        key = config.data.dataset, config.data.folder, config.data.image_size
        known.setdefault(key, config)
        return load(*key)

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
            f"JAX finds no device for JAX_PLATFORMS={platforms or ''}: set it to a platform that "
            f"this machine has, such as cpu, or leave it unset ({first_line(error)})") from error
    is_asked = "cpu" in (jax.config.jax_platforms or "")
    if jax.default_backend() == "cpu" and not is_asked and shutil.which("nvidia-smi"):
        _log.warning("this machine has an NVIDIA GPU that JAX does not see; "
                     "pip install -e '.[cuda]' lets it")
