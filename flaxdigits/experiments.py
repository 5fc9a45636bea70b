"""Experiment files: found by name or by path, listed, and loaded."""

import ast
import contextlib
import difflib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from flaxdigits.config import ExperimentConfig, validate
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.trackers import Tracker

SHIPPED = Path(__file__).resolve().parent.parent / "experiments"


def list_experiments(folder: Path = SHIPPED) -> dict[str, str]:
    """The first line of every experiment's docstring, by name; nothing is executed."""
    return {path.stem: _title(path) for path in sorted(folder.glob("*.py"))
            if path.stem != "__init__"}


def load_experiment(name_or_path: str) -> ExperimentConfig:
    """The config of a shipped experiment, or of a file of the user's own (`path/to/mine.py`).

    Raises:
      FlaxdigitsError: if there is no such experiment, or the file does not give a valid config.
    """
    return validate(_config_of(_find(name_or_path)))


def load_trackers(name_or_path: str) -> list[Tracker]:
    """What an experiment file's `get_trackers()` returns; nothing if it has none.

    The file is not executed again if `load_experiment` has executed it.

    Raises:
      FlaxdigitsError: if there is no such experiment, or these are no trackers.
    """
    path = _find(name_or_path)
    loaded = sys.modules.get(_module_name(path))
    with _told_with_its_line(path):
        if loaded is None or loaded.__file__ != str(path.absolute()):
            loaded = _execute(path)
        trackers = list(getattr(loaded, "get_trackers", list)())
    for tracker in trackers:
        if not isinstance(tracker, Tracker):
            raise FlaxdigitsError(
                f"{path}: get_trackers() must return objects of subclasses of "
                f"flaxdigits.training.trackers.Tracker, got {tracker!r}")
    return trackers


def _find(name_or_path: str) -> Path:
    if name_or_path.endswith(".py"):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise FlaxdigitsError(f"--experiment: there is no file {path}")
        return path
    known = list_experiments()
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=3, cutoff=0.4)
        raise FlaxdigitsError(
            f"--experiment: there is no {name_or_path!r}; "
            + (f"did you mean {' or '.join(near)}? " if near else "")
            + "--list names all; a file of your own is named by its path, ending in .py")
    return SHIPPED / f"{name_or_path}.py"


def _config_of(path: Path) -> ExperimentConfig:
    with _told_with_its_line(path):
        config = _execute(path).get_config()
    if not isinstance(config, ExperimentConfig):
        raise FlaxdigitsError(
            f"{path}: get_config() must return an ExperimentConfig, got {type(config).__name__}")
    return config


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_module_name(path), str(path.absolute()))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


def _module_name(path: Path) -> str:
    return f"flaxdigits_experiment_{path.stem}"


@contextlib.contextmanager
def _told_with_its_line(path: Path) -> Iterator[None]:
    """Turns whatever the user's file raises into one line that says where."""
    try:
        yield
    except FlaxdigitsError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == str(path.absolute())]
        place = f"{path}:{lines[-1]}" if lines else str(path)
        message = " ".join(str(error).split())
        raise FlaxdigitsError(f"{place}: {type(error).__name__}: {message}") from error


def _title(path: Path) -> str:
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, UnicodeDecodeError):
        text = ""
    return text.splitlines()[0] if text else ""
