"""The one exception that a user is meant to read."""


class FlaxdigitsError(Exception):
    """Bad input, told in one line: the field or file, what was expected, and what to do.

    `launch.py` prints the message alone and exits with status 2; library callers catch it.
    """
