"""The one exception that a user is meant to read."""

import re
from typing import Any

LONGEST_QUOTE = 200  # characters


class FlaxdigitsError(Exception):
    """Bad input, told in one line: the field or file, what was expected, and what to do.

    `launch.py` prints the message alone and exits with status 2; library callers catch it.

    Args:
      message: control characters, such as a line break within the name of a file, become escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(
            "[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], message))


def quoted(value: Any) -> str:
    """Returns a value as a message quotes it: its repr, of which a long one is cut short."""
    text = repr(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."
