"""Experiment files: found by name or by path, listed, and loaded."""

import ast
import difflib
import importlib.util
import sys
import traceback
from pathlib import Path

from flaxdigits.config import ExperimentConfig, validate
from flaxdigits.errors import FlaxdigitsError

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
    whole = str(path.absolute())
    spec = importlib.util.spec_from_file_location(f"flaxdigits_experiment_{path.stem}", whole)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except FlaxdigitsError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == whole]
        place = f"{path}:{lines[-1]}" if lines else str(path)
        message = " ".join(str(error).split())
        raise FlaxdigitsError(f"{place}: {type(error).__name__}: {message}") from error
    if not isinstance(config, ExperimentConfig):
        raise FlaxdigitsError(
            f"{path}: get_config() must return an ExperimentConfig, got {type(config).__name__}")
    return config


def _title(path: Path) -> str:
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, UnicodeDecodeError):
        text = ""
    return text.splitlines()[0] if text else ""
