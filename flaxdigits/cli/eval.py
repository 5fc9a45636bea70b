"""--mode=eval: scores checkpoints of a run on all its splits, a line each.

With `--data=real` a run that was trained on drawn data is scored on the real data set.
"""

from flaxdigits.api.evaluate import evaluate
from flaxdigits.cli.context import data_arguments, moved_data_of
from flaxdigits.cli.options import Options


def run(options: Options, config: None) -> int:
    """Prints a line for every checkpoint and adds it to eval.jsonl; returns the exit status."""
    evaluate(options.workdir(), options.checkpoint, experiment=options.experiment,
             **moved_data_of(options), **data_arguments(options))
    return 0
