"""Process settings that must be applied before JAX and the C library are initialized."""

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
INTERRUPTED = "interrupted; saved checkpoints are kept, and the same command resumes the run"


def configure_process() -> None:
    """Applies settings that make JAX start and compute faster, unless the user has set them.

    All compiled programs are saved in the user's cache folder. On Linux large arrays are allocated
    in huge pages; since glibc reads this setting only at its start, the program is executed again
    in the same process. (A step of `kaggle_cnn` allocates 1.6 GB; with pages of 4 KiB the kernel
    took a fifth of the time of a step.) Write errors of standard output and standard error do not
    end the program, see `SafeOutput`.

    Until `enable_interrupts` is called, Ctrl-C ends the process immediately, because an extension
    module that is being imported may ignore a KeyboardInterrupt, or abort.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit_on_interrupt)
    _open_standard_streams()
    sys.stdout, sys.stderr = (_safe_stream(*stream) for stream in (
        (sys.stdout, 1), (sys.stderr, 2)))
    cache = _cache_folder()
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE not in tunables and platform.libc_ver()[0] == "glibc" and _needs_madvise():
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{TUNABLE}=1"]))
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class SafeOutput(io.FileIO):
    """A stream whose write errors, such as a closed pipe or a full disk, do not stop a run.

    Attributes:
      error: the first write error. After it, everything that is written is discarded.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes bytes and returns their number; returns the full number after an error."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def output_error() -> OSError | None:
    """Returns the write error of standard output, or None if everything has been written."""
    sys.stdout.flush()
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return output.error if isinstance(output, SafeOutput) else None


def enable_interrupts() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _exit_on_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _open_standard_streams() -> None:
    """Opens /dev/null for each standard file descriptor that is closed (`>&-`).

    Otherwise the next file that is opened would get its number. The device is opened only for
    reading, so that output to the descriptor fails.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)


def _safe_stream(stream: Any, descriptor: int) -> Any:
    """Returns a text stream to a `SafeOutput`, which escapes characters it cannot encode."""
    if stream is not None and not isinstance(stream, io.TextIOWrapper):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(SafeOutput(descriptor, "w", closefd=False)),
        encoding=stream.encoding if stream else "utf-8", errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor))


def _exit_on_interrupt(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)


def _needs_madvise() -> bool:
    """Returns whether the kernel uses huge pages only where a program requests them."""
    try:
        return "[madvise]" in HUGE_PAGES.read_text()
    except OSError:
        return False


def _cache_folder() -> Path | None:
    """Returns the folder of compiled programs; None for a user without a home folder.

    Each kind of processor has its own folder, since a program for one may crash on another.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    return Path(home) / "flaxdigits" / "compiled" / digest if os.path.isabs(home) else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))),
                platform.machine())
