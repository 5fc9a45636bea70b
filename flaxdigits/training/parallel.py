"""Runs train steps on one or several devices of one or several processes, by `jit` or `pmap`."""

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import xla_bridge  # no public function reports whether JAX is initialized
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.step import TrainTask, train_steps

AXIS = "data"  # the mesh axis over which the batch is sharded; everything else is replicated


def enable_deterministic_kernels() -> None:
    """Sets the XLA flag with which GPU runs are bitwise reproducible.

    It must be called before any other use of JAX.

    Raises:
      FlaxdigitsError: if this process has already used a GPU.
    """
    flag, flags = "--xla_gpu_deterministic_ops=true", os.environ.get("XLA_FLAGS", "")
    if flag in flags.split():
        return
    if xla_bridge.backends_are_initialized() and jax.default_backend() == "gpu":
        raise FlaxdigitsError(
            "train.deterministic=true must be set before this process uses the GPU: restart the "
            "process (in a notebook, the kernel) and begin with this run")
    os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, or the name of its type if it is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_writer() -> bool:
    """Returns whether this process writes files and prints: process 0."""
    return jax.process_index() == 0


def all_reduce(value: int, how: Callable[[np.ndarray], Any]) -> int:
    """Reduces the integers of all processes to one, which every process returns.

    Args:
      value: the integer of this process.
      how: a function that reduces the array of all values, such as `np.max`.
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
    checksum = zlib.crc32(repr(value).encode()) >> 1
    if all_reduce(checksum, np.min) != all_reduce(checksum, np.max):
        raise FlaxdigitsError(
            f"the processes of this run do not all have the same {what}: start all of them with "
            "the same command and data and with a shared workdir")


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
      mesh: the devices as a mesh with the axis `AXIS`.
    """

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


def parallel_steps(task: TrainTask, devices: Devices) -> jax.stages.Wrapped:
    """Returns `train_steps` for all devices, wrapped by `jit` or `pmap`.

    The function takes `(state, examples, order, positions, streams, num_steps)`, with `positions`
    from `all_positions`, and returns the new state and the metrics of the steps. Under `jit` the
    state is donated.
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


def parallel_steps_of_runs(
    task: TrainTask, devices: Devices, num_runs: int
) -> jax.stages.Wrapped:
    """Returns `train_steps` for several runs, which are sharded over the devices, wrapped by `jit`.

    The function takes `(states, examples, orders, positions, streams, num_steps)`: a list of
    `num_runs` states, which are donated, and the other arguments of `parallel_steps`. `orders`,
    `streams` and `num_steps` have a leading axis of runs; `positions` and `examples` are shared by
    the runs. The function returns the list of new states and the stacked metrics. A run whose loss
    is not finite stops at that step; the other runs continue.

    Args:
      task: the task, which is the same for all runs.
      devices: the devices; each one trains `num_runs / devices.count` runs with complete batches.
      num_runs: the number of runs, a multiple of `devices.count`.
    """
    task = dataclasses.replace(task, plan=dataclasses.replace(task.plan, devices=1))

    def steps_on_device(
        state: Any, examples: Any, order: Any, positions: Any, streams: Any, num_steps: Any
    ) -> tuple[Any, Any]:
        steps = functools.partial(train_steps, task)
        if num_runs > devices.count:
            return jax.vmap(steps, (0, None, 0, None, 0, 0))(
                state, examples, order, positions, streams, num_steps)
        state, order, streams, num_steps = jax.tree.map(
            lambda x: x[0], (state, order, streams, num_steps))
        return jax.tree.map(
            lambda x: x[None], steps(state, examples, order, positions, streams, num_steps))

    by_run, replicated = PartitionSpec(AXIS), PartitionSpec()
    sharded_steps = jax.shard_map(
        steps_on_device, mesh=devices.mesh,
        in_specs=(by_run, replicated, by_run, replicated, by_run, by_run),
        out_specs=by_run, check_vma=False)

    def steps(states: list[Any], *others: Any) -> tuple[list[Any], Any]:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        state, metrics = sharded_steps(stacked, *others)
        return [jax.tree.map(lambda x, run=run: x[run], state) for run in range(num_runs)], metrics

    return jax.jit(steps, donate_argnums=0, out_shardings=devices.replicated)


def all_positions(task: TrainTask, devices: Devices) -> Any:
    """Returns the argument `positions` of `parallel_steps`: all positions in the padded batch.

    Returns:
      int32, [padded_batch_size], or [devices, padded_batch_size / devices] for `pmap`.
    """
    positions = np.arange(task.plan.padded_batch_size, dtype=np.int32)
    if task.config.train.parallel == "jit":
        return devices.replicate(positions)
    positions = positions.reshape(devices.count, -1)
    sharding = NamedSharding(devices.mesh, PartitionSpec(AXIS))
    return jax.make_array_from_callback(positions.shape, sharding, positions.__getitem__)
