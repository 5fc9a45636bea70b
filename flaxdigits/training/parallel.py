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
from jax._src import xla_bridge  # the only place that says whether JAX has started
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.step import TrainTask, train_steps

AXIS = "data"  # the batch is sharded over it; everything else is replicated


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
    """Returns the first line of an exception's message, or the name of its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_writer() -> bool:
    """Returns whether this process writes files and prints: process 0."""
    return jax.process_index() == 0


def all_reduce(value: int, how: Callable[[np.ndarray], Any]) -> int:
    """Reduces one integer of every process to a single one, the same in all of them.

    Args:
      value: of this process.
      how: reduces an array of the values of all processes, such as `np.max`.
    """
    if jax.process_count() == 1:
        return value
    return int(how(multihost_utils.process_allgather(np.int32(value))))


def check_same_everywhere(what: str, value: Any) -> None:
    """Raises FlaxdigitsError in every process if `value` differs between processes.

    Args:
      what: the name of the value in the error message.
      value: any object; values are compared by their repr.
    """
    mark = zlib.crc32(repr(value).encode()) >> 1
    if all_reduce(mark, np.min) != all_reduce(mark, np.max):
        raise FlaxdigitsError(
            f"the processes of this run do not all have the same {what}: start each with the same "
            "command, the same data and a --workdir that all of them share")


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run, in a mesh with one axis."""

    mesh: jax.sharding.Mesh

    @classmethod
    def all(cls) -> "Devices":
        """Returns all devices of all processes."""
        return cls(jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,)))

    @property
    def count(self) -> int:
        """The number of devices."""
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of an array that is replicated on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def replicate(self, tree: Any) -> Any:
        """Replicates the arrays of a tree on every device; all processes pass the same values."""
        if jax.process_count() == 1:
            return jax.device_put(tree, self.replicated)

        def replicate_local(array: Any) -> jax.Array:
            local = np.asarray(array)
            return jax.make_array_from_callback(local.shape, self.replicated, local.__getitem__)

        return jax.tree.map(replicate_local, tree)

    def shard_batch(self, batch: Any) -> Any:
        """Shards the first axis of a batch's arrays over the devices; for use within `jit`."""
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), batch)


def parallel_steps(task: TrainTask, devices: Devices) -> Callable[..., Any]:
    """Returns `train_steps` compiled for all devices by `jit` or `pmap`.

    The function takes `(state, examples, order, positions, streams, count)`, with `positions` from
    `all_positions`, and returns the new state and the report of the steps. Under `jit` the state
    is donated.
    """
    if task.config.train.parallel == "pmap":
        task = dataclasses.replace(task, axis_name=AXIS)
        return jax.pmap(
            functools.partial(train_steps, task), axis_name=AXIS,
            in_axes=(None, None, None, 0, None, None), out_axes=None,
            devices=list(devices.mesh.devices.flat))
    task = dataclasses.replace(task, shard_batch=devices.shard_batch)
    return jax.jit(
        functools.partial(train_steps, task), donate_argnums=0,
        out_shardings=devices.replicated)


def parallel_steps_of_runs(task: TrainTask, devices: Devices, number: int) -> Callable[..., Any]:
    """Returns `train_steps` compiled for several runs at once, sharded over the devices by run.

    The function takes `(states, examples, orders, positions, streams, counts)`: a list of `number`
    states, which are donated, and the arguments of `parallel_steps` with a leading axis of runs
    (`positions` and `examples` are shared). It returns the list of new states and the stacked
    reports. A run whose loss is not finite stops at that step; the others continue.

    Args:
      task: shared by the runs.
      devices: each computes the whole batches of `number / devices.count` runs.
      number: how many runs; a multiple of `devices.count`.
    """
    task = dataclasses.replace(task, plan=dataclasses.replace(task.plan, devices=1))

    def here(
        state: Any, examples: Any, order: Any, positions: Any, streams: Any, count: Any
    ) -> tuple[Any, Any]:
        steps = functools.partial(train_steps, task)
        if number > devices.count:
            return jax.vmap(steps, (0, None, 0, None, 0, 0))(
                state, examples, order, positions, streams, count)
        state, order, streams, count = jax.tree.map(
            lambda x: x[0], (state, order, streams, count))
        return jax.tree.map(
            lambda x: x[None], steps(state, examples, order, positions, streams, count))

    each, whole = PartitionSpec(AXIS), PartitionSpec()
    spread = jax.shard_map(
        here, mesh=devices.mesh, in_specs=(each, whole, each, whole, each, each),
        out_specs=each, check_vma=False)

    def steps(states: list[Any], *others: Any) -> tuple[list[Any], Any]:
        state, report = spread(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), *others)
        return [jax.tree.map(lambda x, run=run: x[run], state) for run in range(number)], report

    return jax.jit(steps, donate_argnums=0, out_shardings=devices.replicated)


def all_positions(task: TrainTask, devices: Devices) -> Any:
    """Returns the positions of the global batch, int32, for `parallel_steps`."""
    positions = np.arange(task.plan.padded_batch_size, dtype=np.int32)
    if task.config.train.parallel == "jit":
        return devices.replicate(positions)
    positions = positions.reshape(devices.count, -1)
    sharding = NamedSharding(devices.mesh, PartitionSpec(AXIS))
    return jax.make_array_from_callback(positions.shape, sharding, positions.__getitem__)
