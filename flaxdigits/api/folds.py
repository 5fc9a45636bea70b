"""All folds of writers or of examples: each is tested by a network that never saw it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from flaxdigits.api.arguments import PathLike, Source
from flaxdigits.api.context import (
    check_before_data,
    check_devices,
    checked,
    load_data,
    make_console,
    new_run_folder,
    report_pause,
)
from flaxdigits.api.seeds import outcome_line
from flaxdigits.api.train import check_maker, default_trackers
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.reports.result import print_synthetic_data_notice
from flaxdigits.studies import folds as studies
from flaxdigits.studies.folds import FoldPredictions, FoldRun, fold_configs, read_fold_predictions
from flaxdigits.studies.seeds import checked_seeds
from flaxdigits.training import parallel, processes, provenance
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.loop import Outcome
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.trackers import Tracker


@dataclasses.dataclass(frozen=True)
class FoldsOutcome:
    """How the training of all folds ended.

    Attributes:
      tested: the test predictions of all folds; None if a fold was paused.
      signal: the signal that paused them, if one did.
    """

    tested: FoldPredictions | None
    signal: int | None = None


@pinned_settings()
def train_folds(
    config: ExperimentConfig, seeds: Sequence[int] | None = None,
    workdir: PathLike | None = None, *, data: Source = "auto",
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    trackers: Callable[[Path], Sequence[Tracker]] | None = None, tensorboard: bool = True,
    command: str = "flaxdigits.train_folds", console: Console | None = None,
) -> FoldsOutcome:
    """Trains all folds of an experiment, or resumes them, and reports which examples fail.

    Args:
      config: of an experiment. With `data.split=kfold` the folds are of examples, and else of
        writers, which the data must know; there are `data.folds`. `data.fold` is not used.
      seeds: like `range(3)`; None: the config's own alone.
      workdir: of them all, each a run folder `<workdir>/folds/<fold>/seeds/<seed>`; None is
        `runs/<experiment>`.
      data: as for `train`.
      raw_data_dir: as for `train`.
      data_dir: as for `train`.
      trackers: returns the trackers of a run folder; of folds that are trained at once, as on a
        GPU, only the first is reported, and so it is on the console and in event files.
      tensorboard: as for `train`.
      command: what the tables say they were made by.
      console: as for `train`.

    Raises:
      FlaxdigitsError: as `train` does, also if a fold diverges.
    """
    processes.check_single_process()
    config = checked(config)
    check_maker(trackers)
    chosen = (config.seed,) if seeds is None else checked_seeds(seeds)
    folder = new_run_folder(workdir, config)
    configs = fold_configs(config, chosen, folder)
    check_before_data(next(iter(configs.values())), next(iter(configs)))
    if config.train.deterministic:
        parallel.ask_for_deterministic_kernels()
    console = console or make_console()
    check_devices()
    dataset = load_data(config, data, raw_data_dir, data_dir)
    console.print(f"{config.experiment}: {dataset.name} ({dataset.source}), {len(configs)} runs, "
                  f"on {provenance.device_name()}, in {folder}")
    print_synthetic_data_notice(console, dataset.source)

    def on_end(one: FoldRun, outcome: Outcome) -> None:
        console.print(f"fold {one.fold}, seed {one.seed}: {outcome_line(outcome)}")

    def trackers_of(path: Path) -> list[Tracker]:
        own = trackers(path) if trackers is not None else ()
        return default_trackers(console, tensorboard, profile=False, trackers=own)

    with Interrupts() as interrupts:
        is_whole = studies.train_folds(configs, dataset, trackers_of, on_end)
    if not is_whole:
        report_pause(console, interrupts.received)
        return FoldsOutcome(None, interrupts.received)
    tested = read_fold_predictions(configs, dataset)
    _print_writers(console, config, chosen, command, next(iter(configs)), dataset, tested, folder)
    print_synthetic_data_notice(console, dataset.source)
    console.print(f"tables: {folder / tested.group_name}s.md, and .csv, .json, .png")
    return FoldsOutcome(tested)


def _print_writers(
    console: Console, config: ExperimentConfig, seeds: Sequence[int], command: str, first: Path,
    dataset: Dataset, tested: FoldPredictions, workdir: Path,
) -> None:
    from flaxdigits.reports.writers import WritersReport  # matplotlib takes its time to import

    folds = f"{config.data.folds} folds of " + (
        "examples" if tested.group_name == "fold" else
        f"{len(np.unique(tested.groups)) // config.data.folds} writers")
    result, run = RunFolder(first).result(), RunFolder(first).about()
    jax = run.get("versions", {}).get("jax", "unknown")
    report = WritersReport(
        f"{config.experiment}: which {tested.group_name}s and which characters fail",
        {"command": f"`{command}`", "seeds": ", ".join(map(str, seeds)),
         "data": f"{dataset.name} ({dataset.source}), {folds}, "
                 f"{result['train_examples']:,} images trained on in each",
         "training": f"{result['epochs']:g} epochs, {result['parameters']:,} parameters",
         "hardware": f"{run.get('machine', result['device'])}, JAX {jax}"},
        tested, dataset.images)
    folder = RunFolder(workdir)
    for name, content in report.files().items():
        folder.write(name, content)
    console.print(report.markdown().split("\n\n")[1])
