"""The settings of the process, which must stand before JAX or the C library starts."""

import hashlib
import io
import os
import platform
import signal
import sys
from pathlib import Path
from types import FrameType

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb"
INTERRUPTED = "interrupted: what was saved stays, the same command goes on from it"


def start_well() -> None:
    """Sets what makes JAX start and compute faster; what the user has set is left alone.

    Compiled programs are kept in the user's cache folder, small ones too. On Linux large arrays
    are asked for in huge pages, which glibc can only be told at its start: the program is begun
    again in its own place. (A step of `kaggle_cnn` takes 1.6 GB for its work; fetching those from
    the kernel in pages of 4 KiB took a fifth of the time of a step.) What a terminal cannot show,
    such as the name of a file that is not UTF-8, is printed as escapes, which in JSON are right.

    Ctrl-C ends the process at once, until `imports_are_done`: extensions that are being loaded
    swallow a KeyboardInterrupt, or abort.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache_folder()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE not in tunables and platform.libc_ver()[0] == "glibc" and _are_pages_on_request():
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{TUNABLE}=1"]))
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def imports_are_done() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)


def _are_pages_on_request() -> bool:
    try:
        return "[madvise]" in HUGE_PAGES.read_text()
    except OSError:
        return False


def _cache_folder() -> Path:
    """A folder for each kind of processor: programs compiled for one may crash another."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    mark = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    return Path(home) / "flaxdigits" / "compiled" / mark


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))),
                platform.machine())
