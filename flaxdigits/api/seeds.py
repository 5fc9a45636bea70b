"""Training of several seeds."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
from flaxdigits.api.train import check_maker, default_trackers
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.reports.result import print_summary, print_synthetic_data_notice
from flaxdigits.studies import seeds as studies
from flaxdigits.studies.seeds import checked_seeds
from flaxdigits.training import parallel, processes, provenance
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.trackers import Tracker
from flaxdigits.training.trainer import Outcome


@dataclasses.dataclass(frozen=True)
class SeedsOutcome:
    """How the training of several seeds ended.

    Attributes:
      summary: what `summary.json` holds: under `figures` every figure of the seeds' results with
        its mean, standard deviation and 95 % interval, over these seeds and those that ended
        there before. None if a seed was paused.
      outcomes: of each seed that has ended, diverged or was paused.
      signal: the signal that paused them, if one did.
    """

    summary: dict[str, Any] | None
    outcomes: dict[int, Outcome]
    signal: int | None = None


@pinned_settings()
def train_seeds(
    config: ExperimentConfig, seeds: Sequence[int], workdir: PathLike | None = None, *,
    data: Source = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None,
    trackers: Callable[[Path], Sequence[Tracker]] | None = None, tensorboard: bool = True,
    profile: bool = False, console: Console | None = None,
) -> SeedsOutcome:
    """Trains several seeds of an experiment with one compiled program, or goes on with them.

    Args:
      config: of the experiment; its own seed is not used.
      seeds: like `range(10)`; each is a run folder `<workdir>/seeds/<seed>`.
      workdir: of them all; None is `runs/<experiment>`.
      data: as for `train`.
      raw_data_dir: as for `train`.
      data_dir: as for `train`.
      trackers: returns the trackers of a run folder; of seeds that are trained at once, as on a
        GPU, only the first is reported, and so it is on the console and in event files.
      tensorboard: as for `train`.
      profile: trace some steps of each seed that is reported: `<workdir>/seeds/<seed>/profile`.
      console: as for `train`.

    Raises:
      FlaxdigitsError: as `train` does; a seed that diverges stops no other, and raises if all do.
    """
    processes.check_single_process()
    config = checked(config)
    check_maker(trackers)
    seeds = checked_seeds(seeds)
    if config.train.deterministic:
        parallel.ask_for_deterministic_kernels()
    console = console or make_console()
    check_devices()
    folder = new_run_folder(workdir, config)
    check_before_data(config, folder / "seeds" / str(seeds[0]))
    dataset = load_data(config, data, raw_data_dir, data_dir)
    console.print(
        f"{config.experiment}: {dataset.name} ({dataset.source}), split {config.data.split}, "
        f"{len(seeds)} seeds, on {provenance.device_name()}, in {folder}")
    print_synthetic_data_notice(console, dataset.source)
    outcomes: dict[int, Outcome] = {}

    def on_end(seed: int, outcome: Outcome) -> None:
        outcomes[seed] = outcome
        console.print(f"seed {seed}: {outcome_line(outcome)}")

    def trackers_of(path: Path) -> list[Tracker]:
        console.print(f"seed {path.name}")
        own = trackers(path) if trackers is not None else ()
        return default_trackers(console, tensorboard, profile, own)

    with Interrupts() as interrupts:
        summary = studies.train_seeds(
            config, seeds, dataset, folder, trackers_of, on_end, write_report_or_warn)
    if summary is None:
        report_pause(console, interrupts.received)
        return SeedsOutcome(None, outcomes, interrupts.received)
    if not summary["finished"]:
        raise FlaxdigitsError(
            f"every seed diverged: {next(iter(summary['diverged'].values()))['told']}")
    print_summary(console, summary)
    print_synthetic_data_notice(console, dataset.source)
    console.print(f"complete: {folder / 'summary.json'}")
    return SeedsOutcome(summary, outcomes)


def outcome_line(outcome: Outcome) -> str:
    """What a run came to, in a few words."""
    if outcome.diverged is not None:
        return f"diverged: {outcome.diverged}"
    if outcome.result is None:
        return f"saved at step {outcome.step} of {outcome.total_steps}"
    scored = [split for split in ("train", "validation", "test")
              if outcome.result[f"{split}_accuracy"] is not None]
    return "accuracy " + ", ".join(
        f"{split} {outcome.result[f'{split}_accuracy']:.4%}" for split in scored)
