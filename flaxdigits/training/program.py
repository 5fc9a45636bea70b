"""The compiled train steps of one run, or of several that differ only in their seed or fold.

Everything in which such runs differ (state, order of the data, PRNG keys, number of steps) is an
argument of the program, so that one compilation serves them all. How many runs a call advances
depends on the device:

- On a CPU, one run for each device; the others follow. Milliseconds a step and seed on two shared
  cores of an AMD EPYC (JAX 0.10.2, medians of three calls) for one seed alone, five under
  `lax.map`, and five under `vmap`: `dense_cnn` 6.4, 5.9, 10.0; `mse_cnn` 3.8, 3.7, 4.9;
  `chinese_cnn` 86, 81, 115. `lax.map` gains little over calling the program once for each seed,
  which returns the result of each seed as soon as it is complete; `vmap` (`train.seeds_per_call=5`)
  makes batched matrix products, which are slow there.
- On other devices, all runs that fit into memory, under `vmap`, sharded over the devices by seed.
  A small network leaves most of a GPU idle; several at once use it.

On one CPU device the result of a seed is bitwise that of its own run. Over several devices XLA
adds in another order, and under `vmap` the products are batched: there it is the same except for
rounding. How many runs a call advances depends on the number of runs in all and not on how many
are left, so that a resumed run is bitwise the uninterrupted one.
"""

import contextlib
import ctypes
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxdigits.models.onednn import compile_with_onednn
from flaxdigits.training.memory import check_memory
from flaxdigits.training.parallel import all_positions, parallel_steps, parallel_steps_of_runs
from flaxdigits.training.run import Run
from flaxdigits.training.step import Steps, Streams

MEMORY_SHARE = 0.9  # of a device's memory that a program may take; the rest is for scoring


class Program:
    """Advances several runs at once.

    Args:
      prototype: any of the runs; gives what they share.
      number: how many runs there are in all.
      memory: bytes of each device; None: what the device reports, if it does.

    Attributes:
      number: as given; `train.seeds_per_call` or the device decides how many a call takes.
    """

    def __init__(self, prototype: Run, number: int, memory: int | None = None) -> None:
        self._prototype, self.number = prototype, number
        self._memory = _memory_of_device() if memory is None else memory
        self._compiled: dict[int, Any] = {}
        self._spare: list[Any] = []  # states that fill up a call with fewer runs than `size`
        self._seconds_compiling = 0.0

    @functools.cached_property
    def size(self) -> int:
        """How many runs a call takes."""
        devices = self._prototype.devices.count
        at_once = self._prototype.config.train.seeds_per_call or (
            devices if jax.default_backend() == "cpu" else self.number)
        size = self._whole(min(at_once, self.number))
        while size > self._whole(1) and not self._fits(size):
            size = self._whole(size // 2)
        return size

    def seconds_compiling(self) -> float:
        """Returns the seconds spent compiling since the last call of this method."""
        self._compile(self.size)
        seconds, self._seconds_compiling = self._seconds_compiling, 0.0
        return seconds

    def __call__(
        self, runs: Sequence[Run], orders: Sequence[jax.Array], counts: Sequence[int]
    ) -> list[Steps]:
        """Advances each run by its count of steps, waits, and returns their reports.

        Args:
          runs: at most `size`.
          orders: of each run's epoch, see `Run.order`.
          counts: within one epoch; 0 leaves a run as it is.
        """
        prototype, compiled = self._prototype, self._compile(self.size)
        replicate = prototype.devices.replicate
        if self.size == 1:
            (run,), (order,), (count,) = runs, orders, counts
            run.state, report = compiled(
                run.state, prototype.examples, order, self._positions(1),
                replicate(Streams.of(run.config.seed)), replicate(np.int32(count)))
            return [jax.device_get(report)]
        missing = self.size - len(runs)
        while len(self._spare) < missing:
            self._spare.append(jax.tree.map(jnp.copy, runs[0].state))
        states = [*(run.state for run in runs), *self._spare[:missing]]
        seeds = [run.config.seed for run in runs] + [0] * missing
        states, report = compiled(
            states, prototype.examples, jnp.stack([*orders, *[orders[0]] * missing]),
            self._positions(self.size), replicate(_stack([Streams.of(seed) for seed in seeds])),
            replicate(np.array([*counts, *[0] * missing], np.int32)))
        for run, state in zip(runs, states, strict=False):
            run.state = state
        self._spare[:missing] = states[len(runs):]
        report = jax.device_get(report)
        return [jax.tree.map(lambda values, place=place: values[place], report)
                for place in range(len(runs))]

    def _positions(self, size: int) -> Any:
        """Returns the positions of the global batch; of several runs, replicated."""
        prototype = self._prototype
        if size == 1:
            return all_positions(prototype.task, prototype.devices)
        return prototype.devices.replicate(np.arange(prototype.task.plan.rows, dtype=np.int32))

    def _whole(self, size: int) -> int:
        """Rounds a number of runs up to the same number on every device."""
        devices = self._prototype.devices.count
        return 1 if self.number == 1 else -(-max(size, 1) // devices) * devices

    def _fits(self, size: int) -> bool:
        if self._memory is None:
            return True
        needs = self._compile(size).memory_analysis()
        return MEMORY_SHARE * self._memory >= (
            needs.argument_size_in_bytes + needs.output_size_in_bytes
            + needs.temp_size_in_bytes - needs.alias_size_in_bytes)

    def _compile(self, size: int) -> Any:
        if size not in self._compiled:
            start = time.perf_counter()
            prototype = self._prototype
            replicate, order = prototype.devices.replicate, prototype.order(0)
            streams, count = Streams.of(prototype.config.seed), np.int32(1)
            if size == 1:
                steps = functools.partial(
                    parallel_steps(prototype.task, prototype.devices).lower,
                    prototype.state, prototype.examples, order, self._positions(1),
                    replicate(streams), replicate(count))
            else:
                steps = functools.partial(
                    parallel_steps_of_runs(prototype.task, prototype.devices, size).lower,
                    [prototype.state] * size, prototype.examples, jnp.stack([order] * size),
                    self._positions(size), replicate(_stack([streams] * size)),
                    replicate(np.full(size, count)))
            compiled = compile_with_onednn(steps)
            if size == self._whole(1):  # no smaller one can take its place
                needs = compiled.memory_analysis()
                check_memory(
                    needs.output_size_in_bytes + needs.temp_size_in_bytes
                    - needs.alias_size_in_bytes,
                    f"a train step with train.batch_size={prototype.config.train.batch_size}")
            self._compiled[size] = compiled
            _give_back_freed_memory()
            self._seconds_compiling += time.perf_counter() - start
        return self._compiled[size]


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _memory_of_device() -> int | None:
    """Returns the bytes of memory of one device; None where it does not report it, as on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


def _give_back_freed_memory() -> None:
    """Returns the memory that compilers have freed, 100 MB, from glibc to the system."""
    with contextlib.suppress(AttributeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)
