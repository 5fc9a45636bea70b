"""Trains several seeds of an experiment."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.experiment import validated
from flaxdigits.api.session import Session, Source, new_run_folder
from flaxdigits.api.trackers import TrackerFactory, trackers_by_run
from flaxdigits.config import ExperimentConfig
from flaxdigits.datasets import SPLITS
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.plurals import counted
from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.reports.result import print_summary, print_synthetic_data_notice
from flaxdigits.studies import seeds as studies
from flaxdigits.studies.seeds import checked_seeds
from flaxdigits.training import processes
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.results import Outcome


@dataclasses.dataclass(frozen=True)
class SeedsOutcome:
    """The outcome of training several seeds.

    Attributes:
      summary: the content of `summary.json`: under `metrics`, the mean, standard deviation and
        95 % interval of every metric over all finished seeds in the folder. None if a seed was
        paused.
      outcomes: the outcome of each seed that has finished, diverged or was paused.
      signal: the signal that paused the run, or None.
    """

    summary: dict[str, Any] | None
    outcomes: dict[int, Outcome]
    signal: int | None = None


@pinned_settings()
def train_seeds(
    config: ExperimentConfig, seeds: Sequence[int], workdir: PathLike | None = None, *,
    data: Source = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None,
    trackers: TrackerFactory | None = None, tensorboard: bool = True, profile: bool = False,
    console: Console | None = None,
) -> SeedsOutcome:
    """Trains or resumes several seeds of an experiment with one compiled program.

    Args:
      config: the config of the experiment; its seed is ignored.
      seeds: the seeds to train, such as `range(10)`. Each is a run in `<workdir>/seeds/<seed>`.
      workdir: the folder of all seeds; None: `runs/<experiment>`.
      data: See `train`.
      raw_data_dir: See `train`.
      data_dir: See `train`.
      trackers: a function that returns the trackers of a run folder. If several seeds are trained
        at the same time, as on a GPU, only the first of them is tracked and printed.
      tensorboard: See `train`.
      profile: trace some steps of each tracked seed, to `<workdir>/seeds/<seed>/profile`.
      console: See `train`.

    Raises:
      FlaxdigitsError: as `train` does, but a seed that diverges raises only if all seeds diverge.
    """
    processes.check_single_process()
    config, seeds = validated(config), checked_seeds(seeds)
    session = Session.start([config], console, data, raw_data_dir, data_dir)
    console = session.console
    trackers_of = trackers_by_run(
        console, tensorboard, profile, trackers, lambda path: f"seed {path.name}")
    folder = new_run_folder(workdir, config.experiment)
    dataset = session.load_for_training(config, folder / "seeds" / str(seeds[0]))
    session.print_start(
        config, dataset, f"split {config.data.split}, {counted(len(seeds), 'seed')}", folder)
    outcomes: dict[int, Outcome] = {}

    def on_end(seed: int, outcome: Outcome) -> None:
        outcomes[seed] = outcome
        console.print(f"seed {seed}: {outcome_line(outcome)}")

    with Interrupts() as interrupts:
        summary = studies.train_seeds(
            config, seeds, dataset, folder, trackers_of, on_end, write_report_or_warn,
            session.progress)
    if summary is None:
        session.print_pause(interrupts.received)
        return SeedsOutcome(None, outcomes, interrupts.received)
    if not summary["finished"]:
        raise FlaxdigitsError(
            f"every seed diverged: {next(iter(summary['diverged'].values()))['message']}")
    print_summary(console, summary)
    print_synthetic_data_notice(console, dataset.source)
    console.print(f"complete: {folder / 'summary.json'}")
    return SeedsOutcome(summary, outcomes)


def outcome_line(outcome: Outcome) -> str:
    """Describes the outcome of a run in a few words."""
    if outcome.diverged is not None:
        return f"diverged: {outcome.diverged}"
    if outcome.result is None:
        return f"saved at step {outcome.step} of {outcome.total_steps}"
    splits = [split for split in SPLITS
              if outcome.result[f"{split}_accuracy"] is not None]
    return "accuracy " + ", ".join(
        f"{split} {outcome.result[f'{split}_accuracy']:.4%}" for split in splits)
