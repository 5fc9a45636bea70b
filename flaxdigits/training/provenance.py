"""The provenance of a run: the versions of the packages, the git commit and the device."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax

PACKAGES = ("flaxdigits", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint",
            "tensorflow-datasets", "numpy")


def versions() -> dict[str, str]:
    """Returns the installed versions of flaxdigits and the packages that it uses, by name.

    The version of a package without metadata, such as a checkout of flaxdigits that is not
    installed, is `not installed`.
    """
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_commit() -> str | None:
    """Returns the git commit of the checkout that contains the package; None if there is none.

    `+changes` is appended if files have been changed since the commit.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:  # the checkout of another project
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def device_name() -> str:
    """Returns the kind and number of the devices, such as `cpu x 1` or `NVIDIA H100 x 8`."""
    return f"{jax.devices()[0].device_kind} x {jax.device_count()}"


def machine() -> str:
    """Returns the hardware, such as `AMD EPYC, 2 cores` for a CPU or `NVIDIA H100 x 8`."""
    if jax.default_backend() != "cpu":
        return device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines
                    if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def is_deterministic(requested: bool) -> bool:
    """Returns whether a run on this device is bitwise reproducible.

    Args:
      requested: `train.deterministic`, which only matters on a GPU: runs on a CPU or TPU are always
        reproducible.
    """
    return requested or jax.default_backend() in ("cpu", "tpu")
