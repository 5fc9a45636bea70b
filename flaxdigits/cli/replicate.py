"""--mode=replicate: runs what is missing of the replications, collects the rest, and reports."""

from flaxdigits.api.replicate import replicate
from flaxdigits.cli.context import command_of, own_trackers, seeds_of
from flaxdigits.cli.options import Options
from flaxdigits.errors import FlaxdigitsError


def run(options: Options, config: None) -> int:
    """Returns the exit status: 0, or 128 + the number of the signal that paused the runs."""
    if options.data == "drawn":
        raise FlaxdigitsError(
            "--data=drawn: the claims are about the real data; drawn ones replicate nothing")
    ended = replicate(
        options.experiment, *options.overrides, seeds=seeds_of(options) or range(5),
        workdir=options.optional_workdir(), collect=options.collect,
        collect_only=options.collect_only, update=options.update, dry_run=options.dry_run,
        raw_data_dir=options.raw_data_dir, data_dir=options.data_dir,
        trackers=own_trackers(options), tensorboard=options.tensorboard,
        command=command_of(options, "--mode=replicate"))
    return 128 + ended.signal if ended.signal else 0
