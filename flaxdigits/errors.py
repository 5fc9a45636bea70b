"""The one exception that a user is meant to read."""

from typing import Any

LONGEST_QUOTE = 200  # characters


class FlaxdigitsError(Exception):
    """Bad input, told in one line: the field or file, what was expected, and what to do.

    `launch.py` prints the message alone and exits with status 2; library callers catch it.
    """


def quoted(value: Any) -> str:
    """Returns a value as a message quotes it: its repr, of which a long one is cut short."""
    text = repr(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."
