"""K-fold cross-validation over writers or examples."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.experiment import validated
from flaxdigits.api.seeds import outcome_line
from flaxdigits.api.session import Session, Source, new_run_folder
from flaxdigits.api.trackers import TrackerFactory, trackers_by_run
from flaxdigits.command import command_line
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.plurals import counted
from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.reports.result import data_name, print_synthetic_data_notice
from flaxdigits.reports.writers import WritersReport
from flaxdigits.studies import folds as fold_study
from flaxdigits.studies.folds import FoldPredictions, FoldRun, fold_configs, read_fold_predictions
from flaxdigits.studies.seeds import checked_seeds
from flaxdigits.training import processes
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.results import Outcome
from flaxdigits.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class FoldsOutcome:
    """The outcome of training all folds.

    Attributes:
      predictions: the test predictions of all folds; None if a fold was paused.
      signal: the signal that paused the run, or None.
    """

    predictions: FoldPredictions | None
    signal: int | None = None


@pinned_settings()
def train_folds(
    config: ExperimentConfig, seeds: Sequence[int] | None = None,
    workdir: PathLike | None = None, *, data: Source = "auto",
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    trackers: TrackerFactory | None = None, tensorboard: bool = True,
    command: str | None = None, console: Console | None = None,
) -> FoldsOutcome:
    """Cross-validates an experiment: trains or resumes all folds, and reports their test errors.

    Args:
      config: the config of an experiment. With `data.split=kfold` the examples are divided into
        folds, with any other split the writers, which the data set must have. `data.folds` is the
        number of folds; `data.fold` is ignored.
      seeds: the seeds to train, such as `range(3)`; None: only the seed of the config.
      workdir: the folder of all runs, which are in `<workdir>/folds/<fold>/seeds/<seed>`; None:
        `runs/<experiment>`.
      data: See `train`.
      raw_data_dir: See `train`.
      data_dir: See `train`.
      trackers: a function that returns the trackers of a run folder. If several folds are trained
        at the same time, as on a GPU, only the first of them is tracked and printed.
      tensorboard: See `train`.
      command: the command to print below the tables; None: that of this process.
      console: See `train`.

    Raises:
      FlaxdigitsError: as `train` does, also if a fold diverges.
    """
    processes.check_single_process()
    config = validated(config)
    chosen = (config.seed,) if seeds is None else checked_seeds(seeds)
    folder = new_run_folder(workdir, config.experiment)
    configs = fold_configs(config, chosen, folder)
    session = Session.start([config], console, data, raw_data_dir, data_dir)
    console = session.console
    trackers_of = trackers_by_run(
        console, tensorboard, False, trackers,
        lambda path: f"fold {configs[path].data.fold}, seed {configs[path].seed}")
    first = next(iter(configs))
    dataset = session.load_for_training(config, first)
    session.print_start(config, dataset, counted(len(configs), "run"), folder)

    def on_end(run: FoldRun, outcome: Outcome) -> None:
        console.print(f"fold {run.fold}, seed {run.seed}: {outcome_line(outcome)}")

    with Interrupts() as interrupts:
        is_complete = fold_study.train_folds(
            configs, dataset, trackers_of, on_end, write_report_or_warn,
            session.progress)
    if not is_complete:
        session.print_pause(interrupts.received)
        return FoldsOutcome(None, interrupts.received)
    predictions = read_fold_predictions(configs, dataset)
    _write_report(
        console, config, chosen, command or command_line(), first, dataset, predictions, folder)
    print_synthetic_data_notice(console, dataset.source)
    console.print(f"tables: {folder / predictions.group_name}s.md, and .csv, .json, .png")
    return FoldsOutcome(predictions)


def _write_report(
    console: Console, config: ExperimentConfig, seeds: Sequence[int], command: str, first: Path,
    dataset: Dataset, predictions: FoldPredictions, workdir: Path,
) -> None:
    """Writes the report, and prints its first paragraph; `first` is one of the run folders."""
    group = predictions.group_name
    folds = f"{config.data.folds} folds of " + (
        "examples" if group == "fold" else
        f"{len(np.unique(predictions.groups)) // config.data.folds} writers")
    title = data_name(dataset.name, dataset.source, config.data.folder)
    result, run = RunFolder(first).result(), RunFolder(first).metadata()
    jax = run.get("versions", {}).get("jax", "unknown")
    report = WritersReport(
        f"{config.experiment}: errors by {group} and character",
        {"command": f"`{command}`", "seeds": ", ".join(map(str, seeds)),
         "data": f"{title}, {folds}, "
                 f"{result['train_examples']:,} training images in each",
         "training": f"{counted(result['epochs'], 'epoch')}, "
                     f"{result['parameters']:,} parameters",
         "hardware": f"{run.get('machine', result['device'])}, JAX {jax}"},
        predictions, dataset.images)
    folder = RunFolder(workdir)
    for name, content in report.files().items():
        folder.write(name, content)
    console.print(report.markdown().split("\n\n")[1])
