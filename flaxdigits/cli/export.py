"""`--mode=export`: exports the network of a run to files that do not need flaxdigits."""

from flaxdigits.api.export import export
from flaxdigits.cli.options import Options
from flaxdigits.errors import FlaxdigitsError


def run(options: Options, config: None) -> int:
    """Prints the path of each file; returns the exit status."""
    if options.overrides:
        raise FlaxdigitsError("--mode=export uses the config of the run: leave out --set")
    export(options.workdir(), options.checkpoint, experiment=options.experiment)
    return 0
