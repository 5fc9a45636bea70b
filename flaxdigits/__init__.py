"""flaxdigits: handwritten digits and Chinese numerals in JAX and Flax.

Every mode of `launch.py` has a function here, with the flags as its arguments::

    import flaxdigits

    config = flaxdigits.experiment("chinese_cnn", "train.epochs=1", "data.split=writers")
    outcome = flaxdigits.train(config, "runs/writers")
    print(outcome.result["test_accuracy"])

    flaxdigits.evaluate("runs/writers", "best")
    flaxdigits.compare("runs/*")
    flaxdigits.predict("runs/writers", "scans/*.png")

A function prints the same lines as its mode, and raises `FlaxdigitsError` with the same message for
invalid input. To silence a function, pass `console=rich.console.Console(quiet=True, markup=False)`
(with markup, rich would interpret brackets in the names of folders). Importing the package does not
import JAX or other large libraries: functions and classes are imported when they are first used.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flaxdigits import augmentations as augmentations
    from flaxdigits import components as components
    from flaxdigits import config as config
    from flaxdigits import datasets as datasets
    from flaxdigits import losses as losses
    from flaxdigits import metrics as metrics
    from flaxdigits import models as models
    from flaxdigits import objectives as objectives
    from flaxdigits import optimizers as optimizers
    from flaxdigits import schedules as schedules
    from flaxdigits.api.ablation import AblationOutcome as AblationOutcome
    from flaxdigits.api.ablation import run_ablation as run_ablation
    from flaxdigits.api.benchmark import Benchmark as Benchmark
    from flaxdigits.api.benchmark import run_benchmark as run_benchmark
    from flaxdigits.api.compare import Comparison as Comparison
    from flaxdigits.api.compare import compare as compare
    from flaxdigits.api.data import prepare as prepare
    from flaxdigits.api.data import preview_data as preview_data
    from flaxdigits.api.dataset import dataset as dataset
    from flaxdigits.api.evaluate import evaluate as evaluate
    from flaxdigits.api.experiment import experiment as experiment
    from flaxdigits.api.experiment import recorded_experiment as recorded_experiment
    from flaxdigits.api.export import export as export
    from flaxdigits.api.folds import FoldsOutcome as FoldsOutcome
    from flaxdigits.api.folds import train_folds as train_folds
    from flaxdigits.api.gpu_suite import GpuBenchmark as GpuBenchmark
    from flaxdigits.api.growth import Growth as Growth
    from flaxdigits.api.growth import run_growth as run_growth
    from flaxdigits.api.load import Network as Network
    from flaxdigits.api.load import load as load
    from flaxdigits.api.predict import ImagePredictions as ImagePredictions
    from flaxdigits.api.predict import predict as predict
    from flaxdigits.api.replicate import ReplicationOutcome as ReplicationOutcome
    from flaxdigits.api.replicate import replicate as replicate
    from flaxdigits.api.report import report as report
    from flaxdigits.api.seeds import SeedsOutcome as SeedsOutcome
    from flaxdigits.api.seeds import train_seeds as train_seeds
    from flaxdigits.api.summary import Summary as Summary
    from flaxdigits.api.summary import summary as summary
    from flaxdigits.api.train import train as train
    from flaxdigits.config import ExperimentConfig as ExperimentConfig
    from flaxdigits.data.arrays import DataArrays as DataArrays
    from flaxdigits.data.dataset import Dataset as Dataset
    from flaxdigits.errors import FlaxdigitsError as FlaxdigitsError
    from flaxdigits.experiments import list_experiments as list_experiments
    from flaxdigits.training.results import Outcome as Outcome
    from flaxdigits.training.run_folder import RunFolder as RunFolder
    from flaxdigits.training.trackers import Tracker as Tracker

    __version__: str

# The module of each name. A new mode needs a module in `flaxdigits.api`, a line here and one above.
_HOMES = {
    "experiment": "api.experiment",
    "list_experiments": "experiments",
    "recorded_experiment": "api.experiment",
    "train": "api.train",
    "train_seeds": "api.seeds",
    "train_folds": "api.folds",
    "run_ablation": "api.ablation",
    "replicate": "api.replicate",
    "run_benchmark": "api.benchmark",
    "run_growth": "api.growth",
    "evaluate": "api.evaluate",
    "load": "api.load",
    "dataset": "api.dataset",
    "predict": "api.predict",
    "export": "api.export",
    "report": "api.report",
    "compare": "api.compare",
    "summary": "api.summary",
    "prepare": "api.data",
    "preview_data": "api.data",
    "AblationOutcome": "api.ablation",
    "Benchmark": "api.benchmark",
    "Comparison": "api.compare",
    "DataArrays": "data.arrays",
    "Dataset": "data.dataset",
    "ExperimentConfig": "config",
    "FlaxdigitsError": "errors",
    "FoldsOutcome": "api.folds",
    "GpuBenchmark": "api.gpu_suite",
    "Growth": "api.growth",
    "Network": "api.load",
    "Outcome": "training.results",
    "ImagePredictions": "api.predict",
    "ReplicationOutcome": "api.replicate",
    "RunFolder": "training.run_folder",
    "SeedsOutcome": "api.seeds",
    "Summary": "api.summary",
    "Tracker": "training.trackers",
}

# Modules that experiment files use, which are available as attributes of the package.
_MODULES = ("augmentations", "components", "config", "datasets", "losses", "metrics", "models",
            "objectives", "optimizers", "schedules")

# The current names of functions and classes of earlier versions.
_RENAMED = {"data_sheet": "preview_data", "Readings": "ImagePredictions"}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] - the imports above


if not TYPE_CHECKING:  # type checkers use the imports above, and report unknown names
    def __getattr__(name: str) -> Any:
        name = _RENAMED.get(name, name)
        if name == "__version__":
            return importlib.metadata.version(__name__)
        if name in _MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES, *_MODULES})
