"""The one exception that a user is meant to read."""

import re


class FlaxdigitsError(Exception):
    """Bad input, told in one line: the field or file, what was expected, and what to do.

    `launch.py` prints the message alone and exits with status 2; library callers catch it.

    Args:
      message: control characters, such as a line break within the name of a file, become escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(
            "[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], message))
