"""Finds, lists and loads experiment files."""

import ast
import contextlib
import difflib
import hashlib
import importlib.util
import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from flaxdigits.config import ExperimentConfig, validate
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.patterns import expand_user
from flaxdigits.training.local_modules import SOURCE, importable_folder_of
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.trackers import Tracker

Result = TypeVar("Result")

HERE = Path(__file__).resolve().parent
# Next to the package in a checkout, inside it where a wheel was installed.
BUILT_IN = HERE / "built_in" if (HERE / "built_in").is_dir() else HERE.parent / "experiments"
ABLATIONS = BUILT_IN / "ablations"

_log = logging.getLogger(__name__)


def list_experiments(folder: Path | None = None) -> dict[str, str]:
    """Returns the first docstring line of every experiment by name. No file is executed.

    Args:
      folder: the folder of the experiment files; None for the built-in ones.
    """
    return {path.stem: title(path) for path in sorted((folder or BUILT_IN).glob("*.py"))
            if path.stem != "__init__"}


def load_experiment(name_or_path: str) -> ExperimentConfig:
    """Loads the config of a built-in experiment, or of an experiment file (`path/to/mine.py`).

    Raises:
      FlaxdigitsError: if there is no such experiment, or its config is not valid.
    """
    return validate(load_and_call(
        find(name_or_path, "experiment", BUILT_IN), "get_config", ExperimentConfig))


def run_config(folder: RunFolder, experiment: str | None = None) -> ExperimentConfig:
    """Registers the custom components of a run, and returns the config of the run.

    The components are registered by executing the experiment file that is passed. If none is
    passed, and the components are not registered yet, the original files are executed, but only if
    they are unchanged. A file in the run folder is executed only if it is passed.

    Args:
      folder: the run folder.
      experiment: the experiment file of the run, or the name of the built-in experiment.

    Raises:
      FlaxdigitsError: if the folder is not a run folder, its config is not valid, or a component is
        not registered; if an original file is missing or has changed, the message names its copy.
    """
    if experiment is not None:
        return _config_by(folder, find(experiment, "experiment", BUILT_IN))
    if folder.code():
        with contextlib.suppress(FlaxdigitsError):  # a component is not registered
            config = folder.config()
            if not folder.code_changes(config):
                return config
        for path in folder.original_code():
            with _reraise_with_location(path):
                _execute(path)
    return folder.config()


def _config_by(folder: RunFolder, path: Path) -> ExperimentConfig:
    """Returns the config of a run after executing an experiment file."""
    with _reraise_with_location(path):
        module = _execute(path)
    config = folder.config()
    if hasattr(module, "get_config"):
        model = validate(call_loaded(path, "get_config", ExperimentConfig)).model
        if model.name != config.model.name:
            raise FlaxdigitsError(
                f"{folder.path}: the model of the run is {config.model.name}, but {path} has "
                f"{model.name}: pass the experiment file of the run, or leave out experiment")
    for change in folder.code_changes(config):
        _log.warning("%s: %s", folder.path, change)
    return config


def load_trackers(name_or_path: str) -> list[Tracker]:
    """Returns the trackers that `get_trackers()` of an experiment file creates.

    The list is empty if the file does not define `get_trackers()`. A file that `load_experiment`
    has executed is not executed again.

    Raises:
      FlaxdigitsError: if there is no such experiment, or the function returns other objects.
    """
    path = find(name_or_path, "experiment", BUILT_IN)
    with _reraise_with_location(path):
        trackers = list(getattr(_loaded(path), "get_trackers", list)())
    for tracker in trackers:
        if not isinstance(tracker, Tracker):
            raise FlaxdigitsError(
                f"{path}: get_trackers() must return instances of subclasses of "
                f"flaxdigits.Tracker, got {tracker!r}")
    return trackers


def find(name_or_path: str, argument: str, folder: Path) -> Path:
    """Returns the path of an experiment or study file.

    Args:
      name_or_path: the name of a file in `folder`, or a path that ends in `.py`.
      argument: the name of the argument, and flag, that names the file; starts the error message.
      folder: the folder of the built-in files.

    Raises:
      FlaxdigitsError: if there is no such file.
    """
    if name_or_path.endswith(".py"):
        path = expand_user(name_or_path)
        if not path.is_file():
            raise FlaxdigitsError(f"{argument}: there is no file {path}")
        return path
    known = list_experiments(folder)
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=3, cutoff=0.4)
        raise FlaxdigitsError(
            f"{argument}: there is no {name_or_path!r}; "
            + (f"did you mean {' or '.join(near)}? " if near else "")
            + f"the names are {', '.join(known)}; pass a custom file as a path that ends in .py")
    return folder / f"{name_or_path}.py"


def load_and_call(path: Path, function: str, result_type: type[Result]) -> Result:
    """Executes a file and returns the result of one of its functions, called without arguments.

    Raises:
      FlaxdigitsError: if the file or the function raises an exception (the message contains the
        line), if there is no such function, or if the result is not an instance of `result_type`.
    """
    with _reraise_with_location(path):
        _execute(path)
    return call_loaded(path, function, result_type)


def call_loaded(path: Path, function: str, result_type: type[Result]) -> Result:
    """Like `load_and_call`, but does not execute the file again if this version is loaded.

    Raises:
      FlaxdigitsError: as `load_and_call` does.
    """
    with _reraise_with_location(path):
        result = getattr(_loaded(path), function)()
    if not isinstance(result, result_type):
        article = "an" if result_type.__name__[0] in "AEIOU" else "a"
        raise FlaxdigitsError(f"{path}: {function}() must return {article} {result_type.__name__}, "
                              f"got {type(result).__name__}")
    return result


def _execute(path: Path) -> ModuleType:
    """Executes a file from its source, and returns its module."""
    source = path.read_bytes()
    file = str(path.absolute())
    spec = importlib.util.spec_from_file_location(_module_name(path, source), file)
    assert spec is not None  # of a file that ends in .py
    module = importlib.util.module_from_spec(spec)
    setattr(module, SOURCE, source)  # a run keeps a copy of it
    sys.modules[spec.name] = module  # dataclasses look up the module that defines them
    # Not by the loader of the spec, which could execute a file in __pycache__ instead.
    with importable_folder_of(path):
        exec(compile(source, file, "exec"), vars(module))
    return module


def _loaded(path: Path) -> ModuleType:
    """Returns the module of a file, and executes the file first if it has not been loaded."""
    return sys.modules.get(_module_name(path, path.read_bytes())) or _execute(path)


def _module_name(path: Path, source: bytes) -> str:
    """Returns a name that differs for each file and each version of it."""
    digest = hashlib.sha256(str(path.absolute()).encode() + source).hexdigest()
    return f"flaxdigits_experiment_{path.stem}_{digest[:12]}"


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
