"""`--mode=train`: trains or resumes a run."""

from flaxdigits.api.train import train
from flaxdigits.cli.context import data_arguments
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.experiments import load_trackers


def run(options: Options, config: ExperimentConfig) -> int:
    """Returns the exit status: 0, or 128 + the number of the signal that paused the run."""
    outcome = train(
        config, options.optional_workdir(), **data_arguments(options),
        trackers=load_trackers(options.experiment) if options.experiment else (),
        tensorboard=options.tensorboard, profile=options.profile,
        coordinator=options.coordinator, num_processes=options.num_processes,
        process_id=options.process_id, connect_timeout=options.connect_timeout)
    return 128 + outcome.signal if outcome.signal else 0
