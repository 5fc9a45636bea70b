"""`--seeds=0..9`: trains several seeds of an experiment, or goes on with them."""

from flaxdigits.api.seeds import train_seeds
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.experiments import load_trackers
from flaxdigits.studies.seeds import parse_seeds


def run(options: Options, config: ExperimentConfig) -> int:
    """Returns the exit status: 0, or 128 + the number of the signal that paused the runs."""
    named = options.experiment
    ended = train_seeds(
        config, parse_seeds(options.seeds), options.optional_workdir(),
        **data_arguments(options), trackers=lambda workdir: load_trackers(named) if named else (),
        tensorboard=options.tensorboard, profile=options.profile)
    return 128 + ended.signal if ended.signal else 0
