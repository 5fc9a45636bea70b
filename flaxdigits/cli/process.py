"""The settings of the process, which must stand before JAX or the C library starts."""

import hashlib
import io
import os
import platform
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb"
INTERRUPTED = "interrupted: what was saved stays, the same command resumes it"


def configure_process() -> None:
    """Sets what makes JAX start and compute faster; what the user has set is left alone.

    Compiled programs are kept in the user's cache folder, small ones too. On Linux large arrays
    are asked for in huge pages, which glibc can only be told at its start: the program is begun
    again in its own place. (A step of `kaggle_cnn` takes 1.6 GB for its work; fetching those from
    the kernel in pages of 4 KiB took a fifth of the time of a step.) Standard output and standard
    error never fail, see `Output`.

    Ctrl-C ends the process at once, until `enable_interrupts`: extensions that are being loaded
    swallow a KeyboardInterrupt, or abort.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    _open_standard_streams()
    sys.stdout, sys.stderr = (_safe_stream(*stream) for stream in (
        (sys.stdout, 1), (sys.stderr, 2)))
    cache = _cache_folder()
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE not in tunables and platform.libc_ver()[0] == "glibc" and _are_pages_on_request():
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{TUNABLE}=1"]))
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class Output(io.FileIO):
    """A stream for which a closed pipe or a full disk does not end a training.

    Attributes:
      error: why something could not be written; from then on everything is dropped.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes what it can and returns how many bytes that is; all of them once it has failed."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def lost_output() -> OSError | None:
    """Returns why standard output is incomplete, or None if everything has been written."""
    sys.stdout.flush()
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return output.error if isinstance(output, Output) else None


def enable_interrupts() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _open_standard_streams() -> None:
    """Keeps a descriptor that is closed, as by `>&-`, from becoming that of the next file opened.

    What is opened in its place refuses to be written, as the closed one does.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)


def _safe_stream(stream: Any, descriptor: int) -> Any:
    """Returns a text stream over an `Output`; characters that it cannot encode become escapes."""
    if stream is not None and not isinstance(stream, io.TextIOWrapper):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(Output(descriptor, "w", closefd=False)),
        encoding=stream.encoding if stream else "utf-8", errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor))


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)


def _are_pages_on_request() -> bool:
    try:
        return "[madvise]" in HUGE_PAGES.read_text()
    except OSError:
        return False


def _cache_folder() -> Path | None:
    """Returns a folder for each kind of processor: programs of one may crash another.

    None for a user who has no home folder.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    mark = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    return Path(home) / "flaxdigits" / "compiled" / mark if os.path.isabs(home) else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))),
                platform.machine())
