"""Where a run comes from: the versions of what it is made with, the commit, the device."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax

PACKAGES = ("flaxdigits", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint",
            "tensorflow-datasets", "numpy")


def versions() -> dict[str, str]:
    """Returns the installed version of every package that takes part, by name.

    A checkout that is not installed runs too; its version is `not installed`.
    """
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_commit() -> str | None:
    """The commit of the checkout that runs, with `+changes` if it was altered; None outside git."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:  # installed inside another's checkout
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def device_name() -> str:
    """Like `cpu x 1` or `NVIDIA H100 x 8`."""
    return f"{jax.devices()[0].device_kind} x {jax.device_count()}"


def machine() -> str:
    """The device in a reader's words, like `AMD EPYC, 2 cores` or `NVIDIA H100 x 8`."""
    if jax.default_backend() != "cpu":
        return device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines
                    if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def is_deterministic(asked: bool) -> bool:
    """Whether this run gives the same bits again: on CPU and TPU always, on a GPU when asked."""
    return asked or jax.default_backend() in ("cpu", "tpu")
