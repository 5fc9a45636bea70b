"""What native libraries write to standard error, and their aborts, delayed for a few seconds.

When a process of a run is lost, the native libraries of the others write dozens of lines and
abort, each at a moment of its own. The delay gives this process the time to find out what
happened, to say it in one line, and to end before the rest is shown.
"""

import atexit
import collections
import ctypes
import logging
import os
import select
import signal
import sys
import threading
import time

SECONDS = 5.0  # less than an abort is delayed


def delay_native_output() -> int:
    """Delays native libraries' messages on standard error by 5 s and their aborts by 6 s.

    What Python writes to `sys.stderr` is not delayed. At a regular exit the rest is shown.

    Returns:
      A file descriptor of the real standard error, which nothing delays.
    """
    shown = os.dup(2)
    _point_python_to(shown)
    source, sink = os.pipe()
    os.dup2(sink, 2)
    os.close(sink)
    is_ending = threading.Event()
    copier = threading.Thread(
        target=_copy_later, args=(source, shown, is_ending), name="native-output", daemon=True)
    copier.start()

    def show_the_rest() -> None:
        is_ending.set()
        os.dup2(shown, 2)  # closes the pipe, unless a child process has it too
        copier.join(timeout=1)

    atexit.register(show_the_rest)
    _delay_aborts()
    return shown


def _point_python_to(descriptor: int) -> None:
    """Makes `sys.stderr`, and the handlers that log to it, write to this descriptor."""
    before = sys.stderr
    try:
        if before.fileno() != 2:
            return
    except (AttributeError, OSError):  # there is none, or it is a notebook's
        return
    before.flush()
    sys.stderr = open(  # noqa: SIM115 it is open as long as the process
        descriptor, "w", buffering=1, encoding=before.encoding, errors=before.errors,
        closefd=False)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(sys.stderr)


def _copy_later(source: int, shown: int, is_ending: threading.Event) -> None:
    waiting: collections.deque[tuple[float, bytes]] = collections.deque()
    is_open = True
    while is_open or waiting:
        due = waiting[0][0] - time.monotonic() if waiting else 0.5
        if is_ending.is_set():
            due = 0.0
        if is_open and select.select([source], [], [], min(max(due, 0.0), 0.5))[0]:
            chunk = os.read(source, 1 << 16)
            is_open = bool(chunk)
            if chunk:
                waiting.append((time.monotonic() + SECONDS, chunk))
        elif not is_open:
            is_ending.wait(max(due, 0.0))
        elif is_ending.is_set() and not waiting:
            return
        while waiting and (is_ending.is_set() or waiting[0][0] <= time.monotonic()):
            _write(shown, waiting.popleft()[1])


def _write(descriptor: int, content: bytes) -> None:
    try:
        while content:
            content = content[os.write(descriptor, content):]
    except OSError:  # nobody reads it any more
        pass


def _delay_aborts() -> None:
    """Makes the C library's `sleep` the handler of SIGABRT, called with its number, 6.

    The thread that aborts sleeps for 6 s while the others go on, and the abort follows then.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))
