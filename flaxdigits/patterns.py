"""Paths as users write them: with `~` for a home folder, and patterns."""

import glob
import os
from pathlib import Path

from flaxdigits.errors import FlaxdigitsError


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Returns the path with the home folder in place of a leading `~` or `~user`.

    A file whose name begins with `~` is written `./~name`, and is returned as an absolute path.

    Raises:
      FlaxdigitsError: if there is no such user, or no home folder.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        path = Path(text)  # which drops the `./` of `./~name`
        return Path.cwd() / path if str(path).startswith("~") else path
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise FlaxdigitsError(f"{text}: there is no home folder for "
                              f"{Path(path).parts[0]}; write the whole path") from error


def find_paths(pattern: str) -> list[str]:
    """The path of this very name, if there is one, else those that match it, sorted."""
    named = str(expand_user(pattern))
    return [named] if os.path.exists(named) else sorted(glob.glob(named, recursive=True))
