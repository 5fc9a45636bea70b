"""`--seeds=0..9`: trains several seeds of an experiment, or goes on with them."""

from pathlib import Path

from rich.console import Console

from flaxdigits.cli.context import check_before_data, load_data, run_folder_path, warn_of_unused_gpu
from flaxdigits.cli.options import Options
from flaxdigits.cli.train import trackers_of
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.result import tell_of_drawn_data, tell_summary
from flaxdigits.studies.seeds import parse_seeds, train_seeds
from flaxdigits.training import parallel, provenance
from flaxdigits.training.loop import Outcome
from flaxdigits.training.trackers import Tracker


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints what each seed came to, and the summary; returns the exit status."""
    seeds = parse_seeds(options.seeds)
    if config.train.deterministic:
        parallel.ask_for_deterministic_kernels()
    console = Console(highlight=False, soft_wrap=True)
    warn_of_unused_gpu()
    workdir = run_folder_path(options, config)
    check_before_data(config, workdir / "seeds" / str(seeds[0]))
    dataset = load_data(config, options)
    console.print(
        f"{config.experiment}: {dataset.name} ({dataset.source}), split {config.data.split}, "
        f"{len(seeds)} seeds, on {provenance.device_name()}, in {workdir}")
    tell_of_drawn_data(console, dataset.source)
    signals: list[int] = []

    def tell(seed: int, outcome: Outcome) -> None:
        console.print(f"seed {seed}: {outcome_line(outcome)}")
        signals.extend([outcome.signal] if outcome.signal else [])

    def trackers(path: Path) -> list[Tracker]:
        console.print(f"seed {path.name}")
        return trackers_of(options, console)

    summary = train_seeds(config, seeds, dataset, workdir, trackers, tell)
    if summary is None:
        console.print("paused; the same command goes on from there")
        return 128 + signals[0] if signals else 0
    if not summary["finished"]:
        raise FlaxdigitsError(
            f"every seed diverged: {next(iter(summary['diverged'].values()))['told']}")
    tell_summary(console, summary)
    tell_of_drawn_data(console, dataset.source)
    console.print(f"complete: {workdir / 'summary.json'}")
    return 0


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
