"""Devices: one or many, of one process or of many, under `jit` or `pmap`."""

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import xla_bridge  # whether JAX has begun is told nowhere else
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.step import TrainTask, train_steps

AXIS = "data"  # the batch is spread over it; everything else is the same on every device


def ask_for_deterministic_kernels() -> None:
    """Makes GPU runs give the same bits every time; call it before any other use of JAX.

    Raises:
      FlaxdigitsError: if this process has used a GPU before, which makes it too late.
    """
    flag, flags = "--xla_gpu_deterministic_ops=true", os.environ.get("XLA_FLAGS", "")
    if flag in flags.split():
        return
    if xla_bridge.backends_are_initialized() and jax.default_backend() == "gpu":
        raise FlaxdigitsError(
            "train.deterministic=true must come before anything else that uses the GPU in this "
            "process: restart it (in a notebook, its kernel) and begin with this run")
    os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def first_line(error: BaseException) -> str:
    """An exception's message, cut to one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_writer() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def agree(value: int, how: Callable[[np.ndarray], Any]) -> int:
    """One number for all processes out of each one's own, such as `how=np.max`."""
    if jax.process_count() == 1:
        return value
    return int(how(multihost_utils.process_allgather(np.int32(value))))


def check_same_everywhere(what: str, value: Any) -> None:
    """Raises FlaxdigitsError in every process if they do not all hold the same `value`.

    Args:
      what: a few words that name it.
      value: anything whose repr tells it apart.
    """
    mark = zlib.crc32(repr(value).encode()) >> 1
    if agree(mark, np.min) != agree(mark, np.max):
        raise FlaxdigitsError(
            f"the processes of this run do not all have the same {what}: start each with the same "
            "command, the same data and a --workdir that all of them share")


@dataclasses.dataclass(frozen=True)
class Devices:
    """All devices of a run in one axis."""

    mesh: jax.sharding.Mesh

    @classmethod
    def all(cls) -> "Devices":
        """Every device of every process."""
        return cls(jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,)))

    @property
    def count(self) -> int:
        """How many there are."""
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of what every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def replicate(self, tree: Any) -> Any:
        """The tree's arrays, whole on every device; each process gives the same values."""
        if jax.process_count() == 1:
            return jax.device_put(tree, self.replicated)

        def spread_from_here(array: Any) -> jax.Array:
            here = np.asarray(array)
            return jax.make_array_from_callback(here.shape, self.replicated, here.__getitem__)

        return jax.tree.map(spread_from_here, tree)

    def spread(self, batch: Any) -> Any:
        """Within jit: the arrays' first axis spread over the devices."""
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), batch)


def parallel_steps(task: TrainTask, devices: Devices) -> Callable[..., Any]:
    """`train_steps` of a task over all devices: `lower(...)` it or call it.

    Takes `(state, examples, order, places, streams, count)`, with `places` from `all_places`, and
    gives the state and the steps' report. Under `jit` the state's memory is given up to the
    result.
    """
    if task.config.train.parallel == "pmap":
        task = dataclasses.replace(task, axis_name=AXIS)
        return jax.pmap(
            functools.partial(train_steps, task), axis_name=AXIS,
            in_axes=(None, None, None, 0, None, None), out_axes=None,
            devices=list(devices.mesh.devices.flat))
    task = dataclasses.replace(task, spread=devices.spread)
    return jax.jit(
        functools.partial(train_steps, task), donate_argnums=0,
        out_shardings=devices.replicated)


def parallel_steps_of_runs(task: TrainTask, devices: Devices, number: int) -> Callable[..., Any]:
    """`train_steps` of several runs at once, spread over the devices: `lower(...)` it or call it.

    Takes `(states, examples, orders, places, streams, counts)`: a list of `number` states, and
    what `parallel_steps` takes with a first axis of as many runs (`places` and `examples` have
    none). Gives the list of states, whose memory is given up to the results, and the stacked
    reports. A run whose loss is not finite stops where it is, the others go on.

    Args:
      task: of all the runs.
      devices: on each of which as many runs are computed, whole batches each.
      number: how many runs; a multiple of the devices.
    """
    task = dataclasses.replace(task, plan=dataclasses.replace(task.plan, devices=1))

    def here(
        state: Any, examples: Any, order: Any, places: Any, streams: Any, count: Any
    ) -> tuple[Any, Any]:
        steps = functools.partial(train_steps, task)
        if number > devices.count:
            return jax.vmap(steps, (0, None, 0, None, 0, 0))(
                state, examples, order, places, streams, count)
        state, order, streams, count = jax.tree.map(
            lambda x: x[0], (state, order, streams, count))
        return jax.tree.map(
            lambda x: x[None], steps(state, examples, order, places, streams, count))

    each, whole = PartitionSpec(AXIS), PartitionSpec()
    spread = jax.shard_map(
        here, mesh=devices.mesh, in_specs=(each, whole, each, whole, each, each),
        out_specs=each, check_vma=False)

    def steps(states: list[Any], *others: Any) -> tuple[list[Any], Any]:
        state, report = spread(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), *others)
        return [jax.tree.map(lambda x, run=run: x[run], state) for run in range(number)], report

    return jax.jit(steps, donate_argnums=0, out_shardings=devices.replicated)


def all_places(task: TrainTask, devices: Devices) -> Any:
    """The places of the global batch, as `parallel_steps` takes them."""
    places = np.arange(task.plan.padded_batch_size, dtype=np.int32)
    if task.config.train.parallel == "jit":
        return devices.replicate(places)
    places = places.reshape(devices.count, -1)
    sharding = NamedSharding(devices.mesh, PartitionSpec(AXIS))
    return jax.make_array_from_callback(places.shape, sharding, places.__getitem__)
