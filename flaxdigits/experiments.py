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
from typing import TypeVar

from flaxdigits.config import ExperimentConfig, validate
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user
from flaxdigits.training.trackers import Tracker

Made = TypeVar("Made")

HERE = Path(__file__).resolve().parent
# Beside the package in a checkout, within it where a wheel was installed.
SHIPPED = HERE / "shipped" if (HERE / "shipped").is_dir() else HERE.parent / "experiments"
ABLATIONS = SHIPPED / "ablations"


def list_experiments(folder: Path | None = None) -> dict[str, str]:
    """The first line of every experiment's docstring, by name; nothing is executed.

    Args:
      folder: of your own; None: those that are shipped.
    """
    return {path.stem: title(path) for path in sorted((folder or SHIPPED).glob("*.py"))
            if path.stem != "__init__"}


def load_experiment(name_or_path: str) -> ExperimentConfig:
    """The config of a shipped experiment, or of a file of the user's own (`path/to/mine.py`).

    Raises:
      FlaxdigitsError: if there is no such experiment, or the file does not give a valid config.
    """
    return validate(made_by(
        find(name_or_path, "--experiment", SHIPPED), "get_config", ExperimentConfig))


def load_trackers(name_or_path: str) -> list[Tracker]:
    """What an experiment file's `get_trackers()` returns; nothing if it has none.

    The file is not executed again if `load_experiment` has executed it.

    Raises:
      FlaxdigitsError: if there is no such experiment, or these are no trackers.
    """
    path = find(name_or_path, "--experiment", SHIPPED)
    with _told_with_its_line(path):
        trackers = list(getattr(_executed(path), "get_trackers", list)())
    for tracker in trackers:
        if not isinstance(tracker, Tracker):
            raise FlaxdigitsError(
                f"{path}: get_trackers() must return objects of subclasses of "
                f"flaxdigits.training.trackers.Tracker, got {tracker!r}")
    return trackers


def find(name_or_path: str, flag: str, folder: Path) -> Path:
    """The file in `folder` of that name, or the user's own at that path.

    Raises:
      FlaxdigitsError: if there is none, beginning with the flag that named it.
    """
    if name_or_path.endswith(".py"):
        path = expand_user(name_or_path)
        if not path.is_file():
            raise FlaxdigitsError(f"{flag}: there is no file {path}")
        return path
    known = list_experiments(folder)
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=3, cutoff=0.4)
        raise FlaxdigitsError(
            f"{flag}: there is no {name_or_path!r}; "
            + (f"did you mean {' or '.join(near)}? " if near else "")
            + "--list names all; a file of your own is named by its path, ending in .py")
    return folder / f"{name_or_path}.py"


def made_by(path: Path, function: str, kind: type[Made]) -> Made:
    """What a function of a file returns; the file is executed.

    Raises:
      FlaxdigitsError: with the line at which the file failed, or if that is no `kind`.
    """
    with _told_with_its_line(path):
        _execute(path)
    return also_made_by(path, function, kind)


def also_made_by(path: Path, function: str, kind: type[Made]) -> Made:
    """`made_by` of a file that is not executed again if it was the last of its name to be."""
    with _told_with_its_line(path):
        made = getattr(_executed(path), function)()
    if not isinstance(made, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise FlaxdigitsError(f"{path}: {function}() must return {article} {kind.__name__}, "
                              f"got {type(made).__name__}")
    return made


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_module_name(path), str(path.absolute()))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


def _executed(path: Path) -> ModuleType:
    """As it was executed last, if no other file of its name was since; or else now."""
    module = sys.modules.get(_module_name(path))
    return _execute(path) if module is None or module.__file__ != str(path.absolute()) else module


def _module_name(path: Path) -> str:
    return f"flaxdigits_experiment_{path.stem}"


@contextlib.contextmanager
def _told_with_its_line(path: Path) -> Iterator[None]:
    """Turns whatever the user's file raises into one line that says where."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == str(path.absolute())]
        place = f"{path}:{lines[-1]}" if lines else str(path)
        kind = "" if isinstance(error, FlaxdigitsError) else f"{type(error).__name__}: "
        raise FlaxdigitsError(f"{place}: {kind}{' '.join(str(error).split())}") from error


def title(path: Path) -> str:
    """The first line of a file's docstring; nothing is executed."""
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, UnicodeDecodeError):
        text = ""
    return text.splitlines()[0] if text else ""
