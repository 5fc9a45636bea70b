"""Opening files that come from outside: only regular files are read."""

import errno
import io
import os
import stat
from pathlib import Path


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a regular file, or a link to one, for buffered reading.

    FIFOs, devices and sockets are refused at once: reading them may never end.

    Raises:
      OSError: as `open` does, and if the path is anything but a regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    # Non-blocking, in case a FIFO takes the place of the file between the two calls.
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
