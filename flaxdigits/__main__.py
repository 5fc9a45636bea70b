"""The command line as `python -m flaxdigits`."""

from flaxdigits.cli.main import run

run()
