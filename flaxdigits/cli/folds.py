"""--mode=folds: trains all ten writer folds, or goes on with them, and tells who fails."""

import shlex
from pathlib import Path

from rich.console import Console

from flaxdigits.api.context import check_before_data, load_data, run_folder_path, warn_of_unused_gpu
from flaxdigits.api.seeds import outcome_line
from flaxdigits.api.train import told_of_a_run
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.experiments import load_trackers
from flaxdigits.reports.result import tell_of_drawn_data
from flaxdigits.studies.folds import FoldRun, fold_configs, read_tested, train_folds
from flaxdigits.studies.seeds import parse_seeds
from flaxdigits.training import parallel, provenance
from flaxdigits.training.loop import Outcome
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.trackers import Tracker


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints what each fold came to and where the tables are; returns the exit status."""
    seeds = parse_seeds(options.seeds) if options.seeds is not None else (config.seed,)
    workdir = run_folder_path(options.optional_workdir(), config)
    configs = fold_configs(config, seeds, workdir)
    check_before_data(next(iter(configs.values())), next(iter(configs)))
    if config.train.deterministic:
        parallel.ask_for_deterministic_kernels()
    console = Console(highlight=False, soft_wrap=True)
    warn_of_unused_gpu()
    dataset = load_data(config, **data_arguments(options))
    console.print(f"{config.experiment}: {dataset.name} ({dataset.source}), {len(configs)} runs, "
                  f"on {provenance.device_name()}, in {workdir}")
    tell_of_drawn_data(console, dataset.source)
    signals: list[int] = []

    def tell(one: FoldRun, outcome: Outcome) -> None:
        console.print(f"fold {one.fold}, seed {one.seed}: {outcome_line(outcome)}")
        signals.extend([outcome.signal] if outcome.signal else [])

    def trackers(path: Path) -> list[Tracker]:
        own = load_trackers(options.experiment) if options.experiment else ()
        return told_of_a_run(console, options.tensorboard, False, own)

    if not train_folds(configs, dataset, trackers, tell):
        console.print("paused; the same command goes on from there")
        return 128 + signals[0] if signals else 0

    from flaxdigits.reports.writers import WritersReport  # matplotlib takes its time to import

    first = RunFolder(next(iter(configs)))
    result, versions = first.result(), first.about()["versions"]
    command = ["python", "launch.py", "--mode=folds", f"--experiment={options.experiment}",
               *([f"--seeds={options.seeds}"] if options.seeds is not None else []),
               *(word for override in options.overrides for word in ("--set", override))]
    report = WritersReport(
        f"{config.experiment}: which hands and which characters fail",
        {"command": f"`{shlex.join(command)}`", "seeds": ", ".join(map(str, seeds)),
         "data": f"{dataset.name} ({dataset.source}), ten folds of ten writers, "
                 f"{result['train_examples']:,} images trained on in each",
         "training": f"{result['epochs']:g} epochs, {result['parameters']:,} parameters",
         "hardware": f"{provenance.machine()}, JAX {versions['jax']}"},
        read_tested(configs, dataset), dataset.images)
    folder = RunFolder(workdir)
    for name, content in report.files().items():
        folder.write(name, content)
    console.print(report.markdown().split("\n\n")[1])
    tell_of_drawn_data(console, dataset.source)
    console.print(f"tables: {workdir / 'writers.md'}, and .csv, .json, .png")
    return 0
