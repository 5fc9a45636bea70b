"""Runs an experiment: `python launch.py --experiment=chinese_cnn`; `--help` shows the rest."""

import importlib
import logging
import sys

from flaxdigits.cli.context import recorded_config, resolve_config
from flaxdigits.cli.options import Options, parse
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import list_experiments


def main(arguments: list[str]) -> int:
    """Does what the command line says; returns the exit status, 2 for bad input."""
    quiet_other_libraries()
    try:
        options = parse(arguments)
        if options is None:
            for name, title in list_experiments().items():
                print(f"{name:18} {title}")
            return 0
        if options.logs == "all":
            logging.getLogger().setLevel(logging.INFO)
        config = config_for(options)
        return importlib.import_module(f"flaxdigits.cli.{options.mode}").run(options, config)
    except FlaxdigitsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def config_for(options: Options) -> ExperimentConfig | None:
    """The config that the mode works with, checked before anything heavy is imported."""
    if options.mode == "compare":
        return None
    return recorded_config(options) if options.mode == "eval" else resolve_config(options)


def quiet_other_libraries() -> None:
    """Lets only our own notes through, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.ERROR)
    logging.getLogger("flaxdigits").setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
