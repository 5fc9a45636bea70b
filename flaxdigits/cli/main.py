"""The command line, as `python launch.py`, `python -m flaxdigits` and `flaxdigits` start it."""

import atexit
import contextlib
import importlib
import logging
import os
import sys
import threading
import warnings
from types import ModuleType
from typing import NoReturn

from flaxdigits.cli.compilation_cache import CacheWarnings
from flaxdigits.cli.context import resolve_config
from flaxdigits.cli.options import Options, parse
from flaxdigits.cli.process import INTERRUPTED, configure_process, enable_interrupts, output_error
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError


def main(arguments: list[str]) -> int:
    """Executes a command line; returns the exit status, which is 2 for invalid input."""
    configure_logging()
    try:
        options = parse(arguments)
        if isinstance(options, str):
            print(options)
            return 0 if output_error() is None else 1
        if options.logs == "all":
            logging.getLogger().setLevel(logging.INFO)
        config = config_for(options)
        mode = import_mode(options.command)
        enable_interrupts()
        status = mode.run(options, config)
        write_error = output_error()
        if write_error is None:
            return status
        if not isinstance(write_error, BrokenPipeError):  # a reader such as `head` has ended
            print(f"error: standard output: {write_error.strerror}: the output is incomplete",
                  file=sys.stderr)
        return status or 1
    except FlaxdigitsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130


def config_for(options: Options) -> ExperimentConfig | None:
    """Returns the config, for which JAX need not be imported.

    Returns None for the modes that load the config of a run or run several experiments.
    """
    if options.mode in ("benchmark", "growth") and options.experiment is None:
        return None
    finds_config = options.command in (
        "ablation", "compare", "eval", "export", "predict", "replicate", "report")
    return None if finds_config else resolve_config(options)


def import_mode(command: str) -> ModuleType:
    """Imports the module of a mode, and with it, for most modes, JAX.

    Raises:
      FlaxdigitsError: if an environment variable has a value that JAX rejects.
    """
    try:
        return importlib.import_module(f"flaxdigits.cli.{command}")
    except ValueError as error:  # such as JAX_ENABLE_X64=maybe
        raise FlaxdigitsError(f"JAX cannot be imported: {error}") from error


def exit_process(status: int) -> NoReturn:
    """Ends the process.

    After an error it does not wait for other threads, since those of Orbax may never end. Functions
    registered with `atexit` are called in any case; one of them notifies the other processes of a
    run.
    """
    if status in (1, 2):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def configure_logging() -> None:
    """Prints the log messages of flaxdigits in one line each, and not those of other libraries."""
    sys.unraisablehook = lambda unraisable: None  # Orbax does not await coroutines when it fails
    threading.excepthook = lambda failed: None  # a thread of tensorboardX may fail
    warnings.showwarning = CacheWarnings()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.CRITICAL)
    logging.getLogger("flaxdigits").setLevel(logging.INFO)


def launch() -> NoReturn:
    """Executes the command line of this process, and ends the process."""
    configure_process()
    exit_process(main(sys.argv))
