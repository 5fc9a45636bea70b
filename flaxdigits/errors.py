"""The exception that reports invalid input to the user."""

import re
from typing import Any

MAX_QUOTE_LENGTH = 200  # characters


class FlaxdigitsError(Exception):
    """Reports invalid input in one line: the field or file, what was expected, and what to do.

    `launch.py` prints the message without a traceback and exits with status 2; callers of the
    library catch the exception.

    Args:
      message: the line. Control characters, such as a line break in a file name, are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(
            "[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], message))


def quoted(value: Any) -> str:
    """Returns the repr of a value for use in a message, truncated if it is long."""
    text = repr(value)
    return text if len(text) <= MAX_QUOTE_LENGTH else f"{text[:MAX_QUOTE_LENGTH]}..."
