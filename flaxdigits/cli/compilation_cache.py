"""The cache of compiled programs: damaged entries are replaced, and one note says so.

JAX warns of every entry that it cannot read, on every run, and never writes it again.
"""

import contextlib
import logging
import os
import re
import warnings
from pathlib import Path
from typing import Any, Literal

FAILED = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '([^']+)': (.*)", re.DOTALL)

_log = logging.getLogger(__name__)


class CacheWarnings:
    """Takes the warnings of every library in place of `warnings.showwarning`.

    Those of the cache become one note for each kind; the others go to the log, as after
    `logging.captureWarnings(True)`.
    """

    def __init__(self) -> None:
        self._noted: set[str] = set()

    def __call__(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: Any = None, line: str | None = None,
    ) -> None:
        """Shows a warning; the arguments are those of `warnings.showwarning`."""
        failed = FAILED.match(str(message))
        if failed is None:
            logging.getLogger("py.warnings").warning(
                warnings.formatwarning(message, category, filename, lineno, line))
            return
        action, program, reason = failed.groups()
        folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", ""))
        if action == "reading":  # the entry is not named: all of the program are compiled again
            for path in folder.glob(f"{program}-*"):
                with contextlib.suppress(OSError):
                    path.unlink()
        self._note(action, folder, reason.splitlines()[0] if reason else "")

    def _note(self, action: Literal["reading", "writing"], folder: Path, reason: str) -> None:
        if action in self._noted:
            return
        self._noted.add(action)
        if action == "reading":
            _log.warning("%s: damaged compiled programs are replaced (%s)", folder, reason)
        else:
            _log.warning("%s: compiled programs cannot be kept there (%s)", folder, reason)
