"""Measures the time from the start of the process to the first training step."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from flaxdigits.errors import FlaxdigitsError

LAUNCH = Path(__file__).resolve().parents[2] / "launch.py"
LIMIT = 600  # seconds after which the run counts as failed


def seconds_to_first_step(arguments: Sequence[str]) -> tuple[float, float]:
    """Measures the start-up with an empty compilation cache (cold) and with a filled one (warm).

    Args:
      arguments: the arguments of launch.py: experiment, overrides and data folders.

    Returns:
      The seconds of the cold and of the warm start-up.

    Raises:
      FlaxdigitsError: if a run fails before its first step.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "compiled"
        cold, warm = (_seconds(arguments, Path(folder) / name, cache) for name in ("cold", "warm"))
    return cold, warm


def _seconds(arguments: Sequence[str], workdir: Path, cache: Path) -> float:
    metrics = workdir / "metrics.jsonl"
    command = [
        sys.executable, str(LAUNCH), *arguments, f"--workdir={workdir}",
        "--set=train.log_every=1", "--set=train.stop_after=1"]
    start = time.perf_counter()
    with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}) as process:
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None or time.perf_counter() - start > LIMIT:
                process.kill()
                lines = process.stderr.read().strip().splitlines() or ["it printed no error"]
                raise FlaxdigitsError(f"the run failed before its first step: {lines[-1]}")
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.communicate()
    return seconds
