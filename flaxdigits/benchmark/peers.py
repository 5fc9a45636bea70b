"""What the processes of a comparison have in common: images, and how they are asked.

A process prints a JSON line when it is ready; then, for every line on stdin (a number of steps),
one with the milliseconds of a train step, the median of as many steps being the caller's business,
and the most memory that the process has held.
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
MOST_STEPS = 400  # that are timed in one go


def random_images(name: str, batch_size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Noise in the shape of an experiment's data, and the number of classes.

    Returns:
      images: [n, height, width, 1] uint8; labels: [n] int32.
    """
    (size, classes, count) = (64, 15, 15_000) if name == "chinese_cnn" else (28, 10, 70_000)
    return *noise((max(count, batch_size), size, size, 1), classes), classes


def noise(shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels, uint8 of `shape`, and random labels of them, int32."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, np.uint8)
    return images, rng.integers(0, classes, len(images)).astype(np.int32)


def peak_bytes() -> int:
    """The most memory that this process has held.

    Where there is /proc by what that says: `getrusage` also counts, beyond `exec`, what the process
    held that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (kilobytes,) = re.findall(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
        return int(kilobytes) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def fastest(variants: dict[str, Any], milliseconds: Callable[[Any, int], float]) -> str:
    """The variant with the least milliseconds a step; one that fails here is left out.

    Args:
      variants: by name.
      milliseconds: of a train step of a variant, over so many steps.
    """
    best: dict[str, float] = {}
    for name, variant in variants.items():
        try:
            milliseconds(variant, 1)
            milliseconds(variant, 2)
            best[name] = min(milliseconds(variant, 4) for _ in range(2))
        except Exception as error:  # what a framework cannot compile here is not compared
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    return min(best, key=best.get)


def serve(facts: dict[str, Any], milliseconds: Callable[[int], float]) -> None:
    """Says that it is ready, then answers each line of stdin (a number of steps)."""
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        print(json.dumps({"milliseconds": milliseconds(int(line)), "peak_bytes": peak_bytes()}),
              flush=True)
