"""--mode=eval: scores checkpoints of a run on all its splits, a line each.

With `--data=real` a run that was trained on drawn data is scored on the real data set.
"""

from rich.console import Console

from flaxdigits.cli.context import load_data_of_run, warn_of_unused_gpu
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.checkpoints import evaluate_checkpoints
from flaxdigits.reports.result import evaluation_line, tell_of_drawn_data
from flaxdigits.training.parallel import ask_for_deterministic_kernels
from flaxdigits.training.run_folder import RunFolder


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints a line for every checkpoint and adds it to eval.jsonl; returns the exit status."""
    if options.overrides:
        raise FlaxdigitsError("--mode=eval scores a run as it was trained: leave out --set")
    if config.train.deterministic:
        ask_for_deterministic_kernels()
    console = Console(highlight=False, soft_wrap=True)
    folder = RunFolder(options.workdir())
    warn_of_unused_gpu()
    recorded = folder.data()
    dataset = load_data_of_run(
        config, options, None if options.data == "auto" else options.data)
    if dataset.source != recorded["source"]:
        console.print(
            f"trained on {recorded['source']} data, scored on {dataset.source} data")
    tell_of_drawn_data(console, dataset.source)
    for row in evaluate_checkpoints(config, dataset, folder, options.checkpoint):
        console.print(evaluation_line(row))
    return 0
