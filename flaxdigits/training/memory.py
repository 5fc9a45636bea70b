"""Estimates the memory that a train step needs, and checks that a device has it."""

import re
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxdigits.errors import FlaxdigitsError

CGROUP = Path("/sys/fs/cgroup")


def check_memory(needed: int, what: str) -> None:
    """Checks that a device has enough free memory for a computation.

    Args:
      needed: the number of bytes, in addition to what is in memory now.
      what: the name of the computation, for the error message.

    Raises:
      FlaxdigitsError: if less memory is free.
    """
    free = free_memory()
    if free is not None and needed > free:
        raise FlaxdigitsError(
            f"{what} needs {needed / 1e9:.1f} GB of memory, but only {free / 1e9:.1f} GB are free: "
            "use a smaller train.batch_size, smaller images (data.image_size) or a smaller network")


def free_memory() -> int | None:
    """Returns the number of free bytes of the first device, or for a CPU of the machine.

    Returns None if the number is unknown.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else limit - stats.get("bytes_in_use", 0)
    limits = [free for free in (_free_of_machine(), _free_of_cgroup()) if free is not None]
    return min(limits, default=None)


def state_bytes(state: Any) -> int:
    """Returns the size in bytes of a pytree of arrays or `jax.ShapeDtypeStruct`."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def step_bytes(
    model: nn.Module, variables: Any, image_shape: tuple[int, ...], rows: int
) -> int:
    """Estimates the memory of a train step in bytes, in addition to that of the train state.

    The estimate is the size of the gradient, plus twice the size of the outputs of all layers for
    every row of the batch: one copy is kept for the backward pass, and one holds their gradients.
    The shapes are derived without computing the step. (For `mnist_cnn` with images of 280x280,
    XLA's memory analysis gives 1.9 times the outputs, so the factor of 2 is close.)

    Args:
      model: a linen module that maps images to logits.
      variables: the variables of the model.
      image_shape: (height, width, channels).
      rows: the number of rows of a batch that share one memory: those of one device, or on a CPU
        all of them.
    """
    def outputs(variables: Any) -> Any:
        images = jnp.zeros((1, *image_shape))
        return model.apply(
            variables, images, None, capture_intermediates=True, mutable=["intermediates"])[1]

    activations = state_bytes(jax.eval_shape(outputs, variables))
    return state_bytes(variables["params"]) + 2 * rows * activations


def _free_of_machine() -> int | None:
    found = re.search(r"^MemAvailable: *(\d+) kB$", _read(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _free_of_cgroup() -> int | None:
    """Returns the free bytes within the limit of a container (cgroup version 2, else version 1)."""
    for limit, usage, statistics in (
            ("memory.max", "memory.current", "memory.stat"),
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat")):
        numbers = [_read(CGROUP / name).strip() for name in (limit, usage)]
        if all(map(str.isdecimal, numbers)):
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", _read(CGROUP / statistics),
                               re.MULTILINE)
            most, used = map(int, numbers)
            return most - used + (int(cached[1]) if cached else 0)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
