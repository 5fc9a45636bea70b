"""Paths and glob patterns that a user typed: expands `~` and finds the files that match."""

import glob
import os
from pathlib import Path

from flaxdigits.errors import FlaxdigitsError


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Expands a leading `~` or `~user` to the home folder.

    A file whose name starts with `~` has to be written as `./~name`; the returned path is then
    absolute.

    Raises:
      FlaxdigitsError: if the user does not exist or has no home folder.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        path = Path(text)  # which drops the `./` of `./~name`
        return Path.cwd() / path if str(path).startswith("~") else path
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise FlaxdigitsError(f"{text}: there is no home folder for "
                              f"{Path(path).parts[0]}; write the full path") from error


def find_paths(pattern: str) -> list[str]:
    """Returns the paths that match a pattern, sorted.

    A path that exists under exactly this name is returned without treating it as a pattern.
    """
    expanded = str(expand_user(pattern))
    return [expanded] if os.path.exists(expanded) else sorted(glob.glob(expanded, recursive=True))
