"""Opens files of the user; only regular files are accepted."""

import errno
import io
import os
import stat
from pathlib import Path


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a regular file, or a link to one, for buffered reading.

    FIFOs, devices and sockets are rejected, since reading them may never end.

    Raises:
      OSError: if the file cannot be opened, or is not a regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    # Non-blocking, in case the file is replaced by a FIFO between the two calls.
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
