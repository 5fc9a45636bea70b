"""Handles damaged entries of the JAX compilation cache.

JAX warns about every entry that it cannot read, in every run, and never replaces it. Here damaged
entries are deleted, so that JAX writes them again, and one warning is logged.
"""

import contextlib
import glob
import logging
import re
import warnings
from pathlib import Path
from typing import Any

FAILED = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '([^']+)': (.*)", re.DOTALL)
KEY = re.compile(r"-[0-9a-f]+-(cache|atime)")  # the end of the name of an entry

_log = logging.getLogger(__name__)


class CacheWarnings:
    """A replacement for `warnings.showwarning` that summarizes warnings about the cache.

    It deletes damaged entries. Of the warnings about the cache, only the first of each kind is
    logged. All other warnings are logged as by `logging.captureWarnings(True)`.
    """

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def __call__(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: Any = None, line: str | None = None,
    ) -> None:
        """Logs a warning; the arguments are those of `warnings.showwarning`."""
        # Not at the top of the module, because some commands must start without importing JAX.
        import jax

        failed = FAILED.match(str(message))
        # JAX adds its options to `jax.config` at run time.
        cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
        if failed is None or not cache:
            logging.getLogger("py.warnings").warning(
                warnings.formatwarning(message, category, filename, lineno, line))
            return
        action, program, reason = failed.groups()
        folder = Path(cache)
        if action == "reading":
            # The warning does not contain the cache key, so all entries of this program are
            # deleted.
            for path in folder.glob(f"{glob.escape(program)}-*"):
                if KEY.fullmatch(path.name, len(program)):
                    with contextlib.suppress(OSError):
                        path.unlink()
        self._log_once(action, folder, reason.splitlines()[0] if reason else "")

    def _log_once(self, action: str, folder: Path, reason: str) -> None:
        if action in self._logged:
            return
        self._logged.add(action)
        if action == "reading":
            _log.warning("%s: damaged compiled programs are replaced (%s)", folder, reason)
        else:
            _log.warning("%s: compiled programs cannot be saved in this folder (%s)", folder,
                         reason)
