"""--mode=export: a run's network as files that are used without flaxdigits."""

from flaxdigits.api.export import export
from flaxdigits.cli.options import Options
from flaxdigits.errors import FlaxdigitsError


def run(options: Options, config: None) -> int:
    """Writes them to the run's folder `export` and says what they are; returns the exit status."""
    if options.overrides:
        raise FlaxdigitsError("--mode=export is about a run as it was trained: leave out --set")
    export(options.workdir(), options.checkpoint, experiment=options.experiment)
    return 0
