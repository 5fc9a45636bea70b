"""--mode=predict: what a run's network reads in image files."""

import sys

from flaxdigits.api.context import make_console, print_table
from flaxdigits.api.predict import predict
from flaxdigits.cli.context import print_json
from flaxdigits.cli.options import Options
from flaxdigits.errors import FlaxdigitsError

FIGURE = "figures/predictions.png"


def run(options: Options, config: None) -> int:
    """Prints a table or JSON; returns the exit status, 1 if an image could not be read."""
    if options.overrides:
        raise FlaxdigitsError("--mode=predict uses a run as it was trained: leave out --set")
    figure = options.workdir() / FIGURE if options.figure else None
    found = predict(options.workdir(), options.images, options.checkpoint,
                    experiment=options.experiment, figure=figure)
    if options.format == "json":
        print_json([reading.to_dict() for reading in found.readings])
    else:
        print_table(make_console(), found.__rich__())
    for reading in found.readings:
        for note in reading.notes:
            print(f"note: {note}", file=sys.stderr)
    errors = [reading.error for reading in found.readings if reading.error is not None]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if figure is not None:
        make_console(stderr=options.format == "json").print(
            f"what the network saw: {figure}")
    return int(bool(errors))
