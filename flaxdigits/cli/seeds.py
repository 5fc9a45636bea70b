"""`--seeds=0..9`: trains or resumes several seeds of an experiment."""

from flaxdigits.api.seeds import train_seeds
from flaxdigits.cli.context import data_arguments, experiment_trackers, seeds_of
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig


def run(options: Options, config: ExperimentConfig) -> int:
    """Returns the exit status: 0, or 128 + the number of the signal that paused the runs."""
    seeds = seeds_of(options)
    assert seeds is not None  # the flag that selects this command
    outcome = train_seeds(
        config, seeds, options.optional_workdir(), **data_arguments(options),
        trackers=experiment_trackers(options), tensorboard=options.tensorboard,
        profile=options.profile)
    return 128 + outcome.signal if outcome.signal else 0
