"""`--mode=export`: exports the network of a run to files that can be used without flaxdigits."""

from flaxdigits.api.export import export
from flaxdigits.cli.options import Options


def run(options: Options, config: None) -> int:
    """Prints the path of each file; returns the exit status."""
    export(options.workdir(), options.checkpoint, experiment=options.experiment)
    return 0
