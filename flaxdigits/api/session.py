"""What most functions of the API share: the console, the devices and the data of a call."""

import dataclasses
import functools
import logging
import os
import shutil
import signal
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import jax
from rich.console import Console

from flaxdigits.api.arguments import PathLike, SourceName, path_text
from flaxdigits.api.console import make_console
from flaxdigits.config import DataConfig, ExperimentConfig
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
from flaxdigits.progress import Progress
from flaxdigits.reports.result import data_name, print_synthetic_data_notice
from flaxdigits.training import parallel, provenance
from flaxdigits.training.progress import console_progress
from flaxdigits.training.run_folder import RunFolder, data_differences
from flaxdigits.training.weights import split_checkpoint

_log = logging.getLogger(__name__)

SYNTHETIC = "drawn"  # the name of synthetic data in run folders and in prepared data

Source = SourceName | DataArrays  # arrays only with `data.dataset=arrays`


@dataclasses.dataclass(frozen=True)
class Session:
    """The console and the data of one call of the API.

    Attributes:
      console: the console on which the call reports.
      data: `real`, `synthetic` or `auto`, or the arrays for `data.dataset=arrays`; see `train`.
      raw_data_dir: the folder of the raw files; see `train`.
      data_dir: the folder of prepared data; see `train`.
    """

    console: Console
    data: Source = "auto"
    raw_data_dir: PathLike | None = None
    data_dir: PathLike | None = None
    _datasets: dict[DataConfig, Dataset] = dataclasses.field(
        default_factory=dict, init=False, repr=False)

    @classmethod
    def start(
        cls, configs: Iterable[ExperimentConfig], console: Console | None, data: Source = "auto",
        raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    ) -> "Session":
        """Initializes the devices for these configs, and returns a session.

        Only the first process of a run prints, unless a console is passed.

        Raises:
          FlaxdigitsError: as `check_devices` and `enable_deterministic_kernels` do, or if an
            argument has the wrong type.
        """
        if any(config.train.deterministic for config in configs):
            parallel.enable_deterministic_kernels()
        for name, path in (("raw_data_dir", raw_data_dir), ("data_dir", data_dir)):
            if path is not None:
                path_text(path, name)
        if not isinstance(data, str | DataArrays):
            raise FlaxdigitsError("data must be one of auto, real, synthetic, or a "
                                  f"flaxdigits.DataArrays, got {type(data).__name__}")
        check_devices()
        console = console or make_console(quiet=not parallel.is_writer())
        return cls(console, data, raw_data_dir, data_dir)

    @functools.cached_property
    def progress(self) -> Progress:
        """The progress display for long stages, on the console."""
        return console_progress(self.console)

    @property
    def locations(self) -> DataLocations:
        """The folders and the source of the data.

        Raises:
          FlaxdigitsError: if `data` is not the name of a source.
        """
        if isinstance(self.data, DataArrays) or self.data not in get_args(SourceName):
            raise FlaxdigitsError("data must be one of auto, real, synthetic, or a "
                                  f"flaxdigits.DataArrays, got {quoted(self.data)}")
        raw = self.raw_data_dir or os.environ.get("FLAXDIGITS_RAW_DATA")
        return DataLocations(
            expand_user(raw) if raw else None,
            expand_user(self.data_dir) if self.data_dir else None,
            SYNTHETIC if self.data in ("synthetic", "drawn") else self.data)

    def load(self, config: ExperimentConfig) -> Dataset:
        """Loads the data set of a config; data that several configs share are loaded once.

        Raises:
          FlaxdigitsError: if the data are not found, are damaged or do not fit the config, or if
            the prepared data cannot be written.
        """
        fields = config.data
        key = DataConfig(  # only the fields that determine which data are read
            dataset=fields.dataset, folder=fields.folder, image_size=fields.image_size)
        if key not in self._datasets:
            self._datasets[key] = self._read(dataclasses.replace(fields, indices=None))
        dataset = with_index_file(self._datasets[key], fields)
        if (config.checkpoint.select == "best" and fields.split == "indices"
                and "validation" not in split_indices(fields, dataset)):
            raise FlaxdigitsError(
                f"checkpoint.select=best needs a validation split, and {fields.indices} has none: "
                "add the key validation to that file, or use checkpoint.select=last")
        return dataset

    def load_for_training(self, config: ExperimentConfig, workdir: Path) -> Dataset:
        """Loads the data set of a run in `workdir`, after the checks that need no data.

        For a run that is resumed, `auto` means the source with which the run was started.

        Raises:
          FlaxdigitsError: as `check_before_data` and `load` do.
        """
        check_before_data(config, workdir)
        folder = RunFolder(workdir)
        if self.data == "auto" and folder.contains_run():
            return dataclasses.replace(self, data=folder.data()["source"]).load(config)
        return self.load(config)

    def load_for_run(self, config: ExperimentConfig, folder: RunFolder) -> Dataset:
        """Loads the data set of a run; `auto` means the source with which the run was trained.

        Raises:
          FlaxdigitsError: as `load` does; also if the data have the same source as the data of the
            run, but differ from them.
        """
        recorded = folder.data()
        source = recorded["source"] if self.data == "auto" else self.data
        dataset = dataclasses.replace(self, data=source).load(config)
        changes = data_differences(recorded, dataset.identity())
        if dataset.source == recorded["source"] and changes:
            argument = ("data=" if config.data.dataset == "arrays" else
                        "data.indices=" if changes[0].startswith("data.indices ") else
                        "data.folder=" if config.data.folder else "data_dir or raw_data_dir")
            raise FlaxdigitsError(
                f"{folder.path}: was trained on different data: {'; '.join(changes)}; pass the "
                f"data of the run with {argument}")
        return dataset

    def print_start(
        self, config: ExperimentConfig, dataset: Dataset, what: str, folder: Path
    ) -> None:
        """Prints what is trained, on which data and device, and in which folder."""
        title = data_name(dataset.name, dataset.source, config.data.folder)
        self.console.print(f"{config.experiment}: {title}, {what}, on "
                           f"{provenance.device_name()}, in {folder}")
        print_synthetic_data_notice(self.console, dataset.source)

    def print_pause(self, received: int | None, saved: str = "") -> None:
        """Prints why training was paused: by a signal, or, if None, by `train.stop_after`."""
        cause = signal.Signals(received).name if received else "train.stop_after"
        advice = "the same command resumes it" if received else (
            "to resume, repeat the command with a larger train.stop_after or without it")
        self.console.print(f"paused by {cause}{saved}; {advice}")

    def _read(self, config: DataConfig) -> Dataset:
        if not isinstance(self.data, DataArrays):
            return load_dataset(config, self.locations, self.progress)
        if config.dataset != "arrays":
            raise FlaxdigitsError(
                f"data is a DataArrays, which needs data.dataset=arrays, got {config.dataset}")
        return dataset_of_arrays(config, self.data)


def check_before_data(config: ExperimentConfig, workdir: Path) -> None:
    """Checks, before data are loaded, the model and the `train.init_from` of a new run.

    Raises:
      FlaxdigitsError: if one of them is invalid.
    """
    build_model(config.model, num_classes=1)
    if config.train.init_from is not None and not (workdir / "config.json").exists():
        path, _ = split_checkpoint(config.train.init_from)
        try:
            RunFolder(expand_user(path)).check_is_run()
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"train.init_from: {error}") from error


def check_devices() -> None:
    """Initializes JAX, and logs a warning if it uses the CPU although there is an NVIDIA GPU.

    Raises:
      FlaxdigitsError: if `JAX_PLATFORMS` (or `jax.config.jax_platforms`) is a platform that is
        unknown or has no device on this machine, or if the name of this machine has no address,
        which the CPUs of several processes need to connect.
    """
    # JAX adds its options to `jax.config` at run time.
    platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    try:
        jax.devices()
    except Exception as error:  # JAX raises several types, including AssertionError
        if "gloo" in str(error):
            raise FlaxdigitsError(
                f"the processes cannot connect by gloo: the name of this machine, "
                f"{socket.gethostname()}, must have an address, for instance in /etc/hosts "
                f"({parallel.first_line(error)})") from error
        reason = f" ({parallel.first_line(error)})" if str(error) else ""
        raise FlaxdigitsError(
            f"JAX found no device for JAX_PLATFORMS={platforms or ''}: set it to a platform of "
            f"this machine, such as cpu, or leave it unset{reason}") from error
    requested = jax.config.jax_platforms or ""  # pyright: ignore[reportAttributeAccessIssue]
    is_requested = "cpu" in requested
    if jax.default_backend() == "cpu" and not is_requested and shutil.which("nvidia-smi"):
        _log.warning("JAX does not use the NVIDIA GPU of this machine; "
                     "pip install -e '.[cuda]' installs support for it")


def output_folder(workdir: PathLike | None, default: str) -> Path:
    """Returns the folder to write to, by default runs/<default>."""
    return Path("runs") / default if workdir is None else expand_user(
        path_text(workdir, "workdir"))


def new_run_folder(workdir: PathLike | None, default: str) -> Path:
    """Returns the folder of one or several runs to train, by default runs/<default>.

    Raises:
      FlaxdigitsError: if no run can be saved in a folder of this name.
    """
    folder = output_folder(workdir, default)
    RunFolder(folder).check_path()
    if folder.exists() and not folder.is_dir():
        raise FlaxdigitsError(f"{folder}: is a file; choose another workdir")
    return folder
