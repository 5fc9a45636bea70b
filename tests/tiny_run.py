"""Runs that take a second or two: a small network on the idx files of conftest.py.

A test module asks for the fixtures here with `pytest_plugins = ["tiny_run"]`.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from absl.testing import flagsaver
from array_record.python import array_record_data_source  # noqa: F401 its flags, before any saving

import flaxdigits.datasets
from flaxdigits.components import Component
from flaxdigits.config import (
    CheckpointConfig,
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    TrainConfig,
)
from flaxdigits.data.dataset import DataLocations, Dataset, load_dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.optimizers import SGD
from flaxdigits.overrides import apply_overrides
from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.training.results import Outcome, ReportWriter, no_report
from flaxdigits.training.runs import train_many
from flaxdigits.training.trackers import Tracker

LAUNCH = Path(__file__).resolve().parent.parent / "launch.py"


def train(
    config: ExperimentConfig, dataset: Dataset, workdir: Path, trackers: Sequence[Tracker] = (),
    write_report: ReportWriter = write_report_or_warn,
) -> Outcome:
    """Trains one run and writes its report; a run that diverges raises its error."""
    outcome = train_many({workdir: config}, dataset, lambda path: trackers,
                         write_report=write_report)[workdir]
    if outcome.diverged is not None:
        raise FlaxdigitsError(outcome.diverged)
    return outcome


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets afterwards what a test registers."""
    isolate_registries(monkeypatch)


def isolate_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the registries when the patch is undone."""
    monkeypatch.setattr(flaxdigits.datasets, "DATASETS", dict(flaxdigits.datasets.DATASETS))
    for kind in Component.__subclasses__():
        monkeypatch.setattr(kind, "registered", dict(kind.registered))


@pytest.fixture(scope="session")
def tiny_config(idx_folder: Path) -> ExperimentConfig:
    """Six steps of four an epoch, each of which is saved and scored; all checkpoints are kept."""
    return ExperimentConfig(
        "tiny", ModelConfig("dense_cnn", filters=(2,), dense=(8,)),
        DataConfig(dataset="idx_files", folder=str(idx_folder), split="holdout"),
        SGD(learning_rate=0.1), TrainConfig(batch_size=50, steps=6),
        checkpoint=CheckpointConfig(every_steps=2, keep=None))


@pytest.fixture(scope="session")
def tiny_data(tiny_config: ExperimentConfig) -> Dataset:
    """The 270 images."""
    return load_dataset(tiny_config.data, DataLocations())


@pytest.fixture(scope="session")
def train_tiny(
    tiny_config: ExperimentConfig, tiny_data: Dataset
) -> Callable[..., Outcome]:
    """`train_tiny(workdir, "seed=1", ...)` trains the tiny run in this process, without report."""
    def run(workdir: Path, *assignments: str, write_report: ReportWriter = no_report) -> Outcome:
        return train(apply_overrides(tiny_config, assignments), tiny_data, workdir,
                     write_report=write_report)

    return run


@pytest.fixture(scope="session")
def finished(
    train_tiny: Callable[..., Outcome], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a tiny run that has ended; not to be changed."""
    workdir = tmp_path_factory.mktemp("finished") / "tiny"
    train_tiny(workdir, write_report=write_report_or_warn)
    return workdir


@pytest.fixture
def finished_copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished`, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def launch_here(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess]:
    """Runs `launch.main` in this process, which spares its start; flags are as new each time."""
    monkeypatch.setenv("COLUMNS", "200")
    spec = importlib.util.spec_from_file_location("launch", LAUNCH)
    launch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launch)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess:
        capsys.readouterr()
        with flagsaver.flagsaver():
            status = launch.main([str(LAUNCH), *map(str, arguments)])
        output, errors = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, output, errors)

    return run
