"""Runs an experiment: `python launch.py --experiment=chinese_cnn`; `--help` shows the rest."""

import atexit
import contextlib
import importlib
import logging
import os
import sys
import threading
import warnings
from types import ModuleType

from flaxdigits.cli.compilation_cache import CacheWarnings
from flaxdigits.cli.context import resolve_config
from flaxdigits.cli.options import Options, parse
from flaxdigits.cli.process import INTERRUPTED, configure_process, enable_interrupts, lost_output
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError


def main(arguments: list[str]) -> int:
    """Does what the command line says; returns the exit status, 2 for bad input."""
    quiet_other_libraries()
    try:
        options = parse(arguments)
        if isinstance(options, str):
            print(options)
            return 0 if lost_output() is None else 1
        if options.logs == "all":
            logging.getLogger().setLevel(logging.INFO)
        config = config_for(options)
        mode = import_mode(options.command)
        enable_interrupts()
        status = mode.run(options, config)
        lost = lost_output()
        if lost is None:
            return status
        if not isinstance(lost, BrokenPipeError):  # whoever read our output, such as `head`, left
            print(f"error: standard output: {lost.strerror}: what was printed is incomplete",
                  file=sys.stderr)
        return status or 1
    except FlaxdigitsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130


def config_for(options: Options) -> ExperimentConfig | None:
    """Checked before anything heavy is imported; None for the modes that make or find their own."""
    if options.mode in ("benchmark", "growth") and options.experiment is None:
        return None
    is_own = options.command in (
        "ablation", "compare", "eval", "export", "predict", "replicate", "report")
    return None if is_own else resolve_config(options)


def import_mode(command: str) -> ModuleType:
    """The module of a mode; with it most modes import JAX.

    Raises:
      FlaxdigitsError: if an environment variable has a value that JAX refuses.
    """
    try:
        return importlib.import_module(f"flaxdigits.cli.{command}")
    except ValueError as error:  # such as JAX_ENABLE_X64=maybe
        raise FlaxdigitsError(f"JAX cannot be imported: {error}") from error


def leave(status: int) -> None:
    """Ends the process; after an error without waiting for threads, since Orbax's may never end.

    What is registered with `atexit` is called all the same, such as the farewell to the other
    processes of a run.
    """
    if status in (1, 2):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def quiet_other_libraries() -> None:
    """Lets only our own notes through, one line each."""
    sys.unraisablehook = lambda unraisable: None  # orbax leaves coroutines behind when it fails
    threading.excepthook = lambda failed: None  # and tensorboardX a thread
    warnings.showwarning = CacheWarnings()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.CRITICAL)
    logging.getLogger("flaxdigits").setLevel(logging.INFO)


if __name__ == "__main__":
    configure_process()
    leave(main(sys.argv))
