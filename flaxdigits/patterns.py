"""Paths as users write them: with `~` for a home folder, and patterns."""

import glob
import os
from pathlib import Path

from flaxdigits.errors import FlaxdigitsError


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Returns the path with the home folder in place of a leading `~` or `~user`.

    Raises:
      FlaxdigitsError: if there is no such user, or no home folder.
    """
    try:
        # Of a text `./~x` a Path makes `~x`, which is not meant.
        return Path(path).expanduser() if os.fspath(path).startswith("~") else Path(path)
    except RuntimeError as error:
        raise FlaxdigitsError(f"{os.fspath(path)}: there is no home folder for "
                              f"{Path(path).parts[0]}; write the whole path") from error


def find_paths(pattern: str) -> list[str]:
    """The path of this very name, if there is one, else those that match it, sorted."""
    named = str(expand_user(pattern))
    return [named] if os.path.exists(named) else sorted(glob.glob(named, recursive=True))
