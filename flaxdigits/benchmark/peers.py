"""The protocol of the processes that are timed, and their random images.

A process prints a line of JSON when it is ready. Then, for every line on stdin, which is a number
of steps, it trains for this number of steps and prints a line of JSON with the milliseconds per
step and the peak memory of the process.
"""

import json
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PEERS = ("keras", "torch")
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
MAX_STEPS = 400  # steps of one timing


def random_images(name: str, batch_size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns random images in the shape of an experiment's data.

    Returns:
      Images, [n, height, width, 1] uint8; labels, [n] int32; and the number of classes.
    """
    (size, classes, count) = (64, 15, 15_000) if name == "chinese_cnn" else (28, 10, 70_000)
    return *noise((max(count, batch_size), size, size, 1), classes), classes


def noise(shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, uint8 of the given shape, and random labels, int32."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, np.uint8)
    return images, rng.integers(0, classes, len(images)).astype(np.int32)


def peak_bytes() -> int:
    """Returns the peak memory of this process.

    Uses /proc if it exists, since `getrusage` includes the memory of the parent process before
    `exec`.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (kilobytes,) = re.findall(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
        return int(kilobytes) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def fastest(variants: dict[str, Any], milliseconds: Callable[[Any, int], float]) -> str:
    """Returns the name of the variant with the fastest train step. Variants that fail are skipped.

    Args:
      variants: the variants by name.
      milliseconds: returns the milliseconds per train step of a variant, for a number of steps.
    """
    best: dict[str, float] = {}
    for name, variant in variants.items():
        try:
            milliseconds(variant, 1)
            milliseconds(variant, 2)
            best[name] = min(milliseconds(variant, 4) for _ in range(2))
        except Exception as error:  # this machine may not support the variant
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    return min(best, key=best.__getitem__)


def serve(facts: dict[str, Any], milliseconds: Callable[[int], float]) -> None:
    """Prints that the process is ready, then answers requests for timings on stdin.

    Args:
      facts: the content of the first line.
      milliseconds: a function that trains for a number of steps and returns the milliseconds per
        step.
    """
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        print(json.dumps({"milliseconds": milliseconds(int(line)), "peak_bytes": peak_bytes()}),
              flush=True)
