"""`--mode=predict`: classifies image files with the network of a run."""

import sys

from flaxdigits.api.console import make_console, print_table
from flaxdigits.api.predict import predict
from flaxdigits.cli.context import print_json
from flaxdigits.cli.options import Options

FIGURE = "figures/predictions.png"


def run(options: Options, config: None) -> int:
    """Prints a table or JSON; returns the exit status, 1 if an image could not be read."""
    figure = options.workdir() / FIGURE if options.figure else None
    images = predict(options.workdir(), options.images, options.checkpoint,
                     experiment=options.experiment, figure=figure,
                     console=make_console(stderr=options.format == "json"))
    if options.format == "json":
        print_json([prediction.to_dict() for prediction in images.predictions])
    else:
        print_table(make_console(), images.__rich__())
    for prediction in images.predictions:
        for note in prediction.notes:
            print(f"note: {note}", file=sys.stderr)
    errors = [prediction.error for prediction in images.predictions
              if prediction.error is not None]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if figure is not None:
        make_console(stderr=options.format == "json").print(
            f"images and network inputs: {figure}")
    return int(bool(errors))
