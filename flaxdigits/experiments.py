"""Finds, lists and loads experiment files."""

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

Result = TypeVar("Result")

HERE = Path(__file__).resolve().parent
# Next to the package in a checkout, inside it where a wheel was installed.
SHIPPED = HERE / "shipped" if (HERE / "shipped").is_dir() else HERE.parent / "experiments"
ABLATIONS = SHIPPED / "ablations"


def list_experiments(folder: Path | None = None) -> dict[str, str]:
    """Returns the first docstring line of every experiment by name. No file is executed.

    Args:
      folder: the folder of the experiment files; None for the shipped ones.
    """
    return {path.stem: title(path) for path in sorted((folder or SHIPPED).glob("*.py"))
            if path.stem != "__init__"}


def load_experiment(name_or_path: str) -> ExperimentConfig:
    """Loads the config of a shipped experiment, or of an experiment file (`path/to/mine.py`).

    Raises:
      FlaxdigitsError: if there is no such experiment, or its config is not valid.
    """
    return validate(load_and_call(
        find(name_or_path, "--experiment", SHIPPED), "get_config", ExperimentConfig))


def load_trackers(name_or_path: str) -> list[Tracker]:
    """Returns the trackers that `get_trackers()` of an experiment file creates.

    The list is empty if the file does not define `get_trackers()`. A file that `load_experiment`
    has executed is not executed again.

    Raises:
      FlaxdigitsError: if there is no such experiment, or the function returns other objects.
    """
    path = find(name_or_path, "--experiment", SHIPPED)
    with _reraise_with_location(path):
        trackers = list(getattr(_loaded(path), "get_trackers", list)())
    for tracker in trackers:
        if not isinstance(tracker, Tracker):
            raise FlaxdigitsError(
                f"{path}: get_trackers() must return objects of subclasses of "
                f"flaxdigits.training.trackers.Tracker, got {tracker!r}")
    return trackers


def find(name_or_path: str, flag: str, folder: Path) -> Path:
    """Returns the path of an experiment or study file.

    Args:
      name_or_path: the name of a file in `folder`, or a path that ends in `.py`.
      flag: the command line flag that names the file; starts the error message.
      folder: the folder of the shipped files.

    Raises:
      FlaxdigitsError: if there is no such file.
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
            + "--list shows all names; pass a custom file as a path that ends in .py")
    return folder / f"{name_or_path}.py"


def load_and_call(path: Path, function: str, result_type: type[Result]) -> Result:
    """Executes a file and returns the result of one of its functions.

    Raises:
      FlaxdigitsError: with the line at which the file failed; or if the result is not an instance
        of `result_type`.
    """
    with _reraise_with_location(path):
        _execute(path)
    return call_loaded(path, function, result_type)


def call_loaded(path: Path, function: str, result_type: type[Result]) -> Result:
    """Like `load_and_call`, but does not execute the file again if it has been loaded."""
    with _reraise_with_location(path):
        result = getattr(_loaded(path), function)()
    if not isinstance(result, result_type):
        article = "an" if result_type.__name__[0] in "AEIOU" else "a"
        raise FlaxdigitsError(f"{path}: {function}() must return {article} {result_type.__name__}, "
                              f"got {type(result).__name__}")
    return result


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_module_name(path), str(path.absolute()))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the module that defines them
    spec.loader.exec_module(module)
    return module


def _loaded(path: Path) -> ModuleType:
    """Returns the module of a file, and executes the file first if it has not been loaded."""
    module = sys.modules.get(_module_name(path))
    return _execute(path) if module is None or module.__file__ != str(path.absolute()) else module


def _module_name(path: Path) -> str:
    return f"flaxdigits_experiment_{path.stem}"


@contextlib.contextmanager
def _reraise_with_location(path: Path) -> Iterator[None]:
    """Converts an exception of the user's file into a FlaxdigitsError with file and line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == str(path.absolute())]
        location = f"{path}:{lines[-1]}" if lines else str(path)
        prefix = "" if isinstance(error, FlaxdigitsError) else f"{type(error).__name__}: "
        raise FlaxdigitsError(f"{location}: {prefix}{' '.join(str(error).split())}") from error


def title(path: Path) -> str:
    """Returns the first line of a file's docstring. The file is not executed."""
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, UnicodeDecodeError):
        text = ""
    return text.splitlines()[0] if text else ""
