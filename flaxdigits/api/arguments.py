"""Types of arguments that several functions of the API share, and the check of paths."""

import os
from typing import Any, Literal

from flaxdigits.errors import FlaxdigitsError, quoted

PathLike = str | os.PathLike[str]
# `drawn` is the old name of `synthetic`.
SourceName = Literal["auto", "real", "synthetic", "drawn"]


def path_text(value: Any, name: str) -> str:
    """Returns a path as a string.

    Args:
      value: the argument that a user passed.
      name: the name of the argument, for the error message.

    Raises:
      FlaxdigitsError: if the value is not a path, or is empty.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(text, str) or not text:
        got = quoted(value) if isinstance(value, str | bytes | int | float | None) else (
            type(value).__name__)
        raise FlaxdigitsError(
            f"{name} must be a path (str or os.PathLike) that is not empty, got {got}")
    return text
