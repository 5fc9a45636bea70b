"""`--mode=eval`: evaluates checkpoints of a run on all its splits.

With `--data=real` a run that was trained on synthetic data is evaluated on the real data.
"""

from flaxdigits.api.evaluate import evaluate
from flaxdigits.cli.context import data_arguments, moved_data_of
from flaxdigits.cli.options import Options


def run(options: Options, config: None) -> int:
    """Prints a line for every checkpoint; returns the exit status."""
    evaluate(options.workdir(), options.checkpoint, experiment=options.experiment,
             **moved_data_of(options), **data_arguments(options))
    return 0
