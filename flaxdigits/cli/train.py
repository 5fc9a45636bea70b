"""--mode=train: trains an experiment, or goes on with it."""

from rich.console import Console

from flaxdigits.api.train import told_of_a_run, train
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.experiments import load_trackers
from flaxdigits.training.trackers import Tracker


def run(options: Options, config: ExperimentConfig) -> int:
    """Returns the exit status: 0, or 128 + the number of the signal that paused the run."""
    outcome = train(
        config, options.optional_workdir(), **data_arguments(options),
        trackers=load_trackers(options.experiment) if options.experiment else (),
        tensorboard=options.tensorboard, profile=options.profile,
        coordinator=options.coordinator, num_processes=options.num_processes,
        process_id=options.process_id)
    return 128 + outcome.signal if outcome.signal else 0


def trackers_of(options: Options, console: Console) -> list[Tracker]:
    """Whom the options want to be told of a run that is one of several."""
    own = load_trackers(options.experiment) if options.experiment is not None else ()
    return told_of_a_run(console, options.tensorboard, options.profile, own)
