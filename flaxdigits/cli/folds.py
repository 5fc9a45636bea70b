"""`--mode=folds`: trains or resumes all folds of writers or examples, and reports the errors."""

from flaxdigits.api.folds import train_folds
from flaxdigits.cli.context import command_of, data_arguments, experiment_trackers, seeds_of
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig


def run(options: Options, config: ExperimentConfig) -> int:
    """Returns the exit status: 0, or 128 + the number of the signal that paused the runs."""
    outcome = train_folds(
        config, seeds_of(options), options.optional_workdir(), **data_arguments(options),
        trackers=experiment_trackers(options), tensorboard=options.tensorboard,
        command=command_of(options, "--mode=folds"))
    return 128 + outcome.signal if outcome.signal else 0
