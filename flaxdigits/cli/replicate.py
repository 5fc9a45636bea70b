"""`--mode=replicate`: collects and trains the runs of the replications, and writes the report."""

from flaxdigits.api.replicate import replicate
from flaxdigits.cli.context import command_of, experiment_trackers, seeds_of
from flaxdigits.cli.options import Options
from flaxdigits.errors import FlaxdigitsError


def run(options: Options, config: None) -> int:
    """Returns the exit status: 0, or 128 + the number of the signal that paused the runs."""
    if options.data == "synthetic":
        raise FlaxdigitsError("--mode=replicate does not support --data=synthetic: the published "
                              "results are for the real data")
    outcome = replicate(
        options.experiment, *options.overrides, seeds=seeds_of(options) or range(5),
        workdir=options.optional_workdir(), collect=options.collect,
        collect_only=options.collect_only, update=options.update, dry_run=options.dry_run,
        raw_data_dir=options.raw_data_dir, data_dir=options.data_dir,
        trackers=experiment_trackers(options), tensorboard=options.tensorboard,
        command=command_of(options, "--mode=replicate"))
    return 128 + outcome.signal if outcome.signal else 0
