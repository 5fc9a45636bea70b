"""--mode=predict: what a run's network reads in image files."""

import glob
import json
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from flaxdigits.cli.options import Options
from flaxdigits.cli.tables import print_table
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.predict import predict
from flaxdigits.evaluation.trained import load_network
from flaxdigits.reports.readings import reading_table
from flaxdigits.training.run_folder import RunFolder

FIGURE = "figures/predictions.png"


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints a table or JSON; returns the exit status, 1 if an image could not be read."""
    if options.overrides:
        raise FlaxdigitsError("--mode=predict uses a run as it was trained: leave out --set")
    files = find_files(options.images)
    folder = RunFolder(options.workdir())
    if options.figure:
        folder.check_writable()
    network = load_network(folder, config, options.checkpoint)
    readings = predict(network, files)
    if options.format == "json":
        print(json.dumps([reading.to_dict() for reading in readings], indent=2,
                         ensure_ascii=False))
    else:
        print_table(reading_table(readings))
    for reading in readings:
        if reading.error is not None:
            print(f"error: {reading.error}", file=sys.stderr)
    if options.figure:
        from flaxdigits.reports.figures import png
        from flaxdigits.reports.readings import reading_sheet

        folder.write(FIGURE, png(reading_sheet(readings, network.class_names)))
        Console(stderr=options.format == "json", highlight=False, soft_wrap=True).print(
            f"what the network saw: {options.workdir() / FIGURE}")
    return int(any(reading.error is not None for reading in readings))


def find_files(patterns: Sequence[str]) -> list[str]:
    """The files that the patterns match, each once: sorted within a pattern.

    A pattern without a match counts as a file, which will not be there.

    Raises:
      FlaxdigitsError: if there is no pattern, or none matches.
    """
    if not patterns:
        raise FlaxdigitsError("--mode=predict needs images: --images=photo.jpg, or "
                              "--images='scans/*.png'; repeatable")
    found: dict[str, None] = {}
    for pattern in map(os.path.expanduser, patterns):
        matches = [pattern] if os.path.exists(pattern) else sorted(
            glob.glob(pattern, recursive=True))
        found |= dict.fromkeys(matches or [pattern])
    if not any(map(os.path.exists, found)):
        raise FlaxdigitsError(f"--images: no file matches {', '.join(patterns)}")
    return list(found)
