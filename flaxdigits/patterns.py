"""Expands `~` in paths, and finds the files that match a glob pattern."""

import glob
import os
from pathlib import Path

from flaxdigits.errors import FlaxdigitsError


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Expands a leading `~` or `~user` to the home folder.

    A path to a file whose name starts with `~` must be written as `./~name`; the returned path is
    then absolute.

    Raises:
      FlaxdigitsError: if the user does not exist or has no home folder.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        path = Path(text)  # this drops the `./` of `./~name`
        return Path.cwd() / path if str(path).startswith("~") else path
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise FlaxdigitsError(f"{text}: there is no home folder for "
                              f"{Path(path).parts[0]}; write the full path") from error


def find_paths(pattern: str) -> list[str]:
    """Returns the paths that match a glob pattern, sorted.

    If the pattern is the path of an existing file, only this path is returned.
    """
    expanded = str(expand_user(pattern))
    return [expanded] if os.path.exists(expanded) else sorted(glob.glob(expanded, recursive=True))
