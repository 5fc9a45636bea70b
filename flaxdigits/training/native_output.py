"""Delays what native libraries write to standard error, and their aborts, by a few seconds.

When a process of a run is lost, the native libraries of the other processes write dozens of lines
and abort at different times. The delay allows each of these processes to determine the cause, to
print it in one line, and to exit before the output of the libraries is shown.
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

SECONDS = 5.0  # must be shorter than the delay of an abort


def delay_native_output() -> int:
    """Delays messages of native libraries on standard error by 5 s and their aborts by 6 s.

    Output of Python to `sys.stderr` is not delayed. At a regular exit the remaining messages are
    written.

    Returns:
      A file descriptor of the original standard error; output to it is not delayed.
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

    def write_remaining_output() -> None:
        is_ending.set()
        os.dup2(shown, 2)  # closes the pipe, unless a child process also has it open
        copier.join(timeout=1)

    atexit.register(write_remaining_output)
    _delay_aborts()
    return shown


def _point_python_to(descriptor: int) -> None:
    """Redirects `sys.stderr`, and the logging handlers that write to it, to this descriptor."""
    before = sys.stderr
    try:
        if before.fileno() != 2:
            return
    except (AttributeError, OSError):  # there is no stderr, or it belongs to a notebook
        return
    before.flush()
    sys.stderr = open(  # noqa: SIM115 it stays open until the process ends
        descriptor, "w", buffering=1, encoding=before.encoding, errors=before.errors,
        closefd=False)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(sys.stderr)


def _copy_later(source: int, shown: int, is_ending: threading.Event) -> None:
    """Copies bytes between descriptors `SECONDS` after they arrive, or at once when `is_ending`."""
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
    except OSError:  # the reader has closed it
        pass


def _delay_aborts() -> None:
    """Installs the C function `sleep` as the handler of SIGABRT.

    The handler is called with the number of the signal, 6: the thread that aborts sleeps for 6 s
    before the process aborts, while other threads continue.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))
