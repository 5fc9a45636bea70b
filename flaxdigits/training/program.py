"""The compiled steps of a run, or of several that differ in their seed or fold alone.

All that tells such runs apart (state, order, keys, how many steps) is an argument of one program,
so that one compilation serves them all. How many of them a call advances is the device's choice:

- On a CPU one on each device, and the others after them. Milliseconds a step and seed on two
  shared cores of an AMD EPYC (JAX 0.10.2, medians of three calls), for one seed alone, five under
  `lax.map` and five under `vmap`: `dense_cnn` 6.4, 5.9, 10.0; `mse_cnn` 3.8, 3.7, 4.9;
  `chinese_cnn` 86, 81, 115. `lax.map` gains little over the same program called for one seed after
  another, which has each seed's result as soon as it is there; `vmap` (`train.together=5`) makes
  batched products, which are slow there.
- Elsewhere all that fit the memory, under `vmap`, the seeds spread over the devices. A small
  network leaves most of a GPU idle; several at once use it.

On one CPU device a seed's result is bitwise that of its own run. Spread over several devices XLA
sums in another order, and under `vmap` the products are batched ones: there it is the same but for
rounding. How many a call takes depends on how many runs there are in all and not on how many are
left, so that what is resumed is bitwise what it would have been.
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
from flaxdigits.training.parallel import all_places, parallel_steps, parallel_steps_of_runs
from flaxdigits.training.run import Run
from flaxdigits.training.step import Steps, Streams

MEMORY_SHARE = 0.9  # of a device's memory that a program may take; the rest is for scoring


class Program:
    """Advances several runs at once.

    Args:
      like: one of the runs.
      number: how many runs there are in all.
      memory: bytes of each device; None: its own, where it tells.

    Attributes:
      number: as given; `train.together` or the device decides how many a call takes.
    """

    def __init__(self, like: Run, number: int, memory: int | None = None) -> None:
        self._like, self.number = like, number
        self._memory = _memory_of_device() if memory is None else memory
        self._compiled: dict[int, Any] = {}
        self._spare: list[Any] = []  # states of the places that no run takes
        self._seconds_compiling = 0.0

    @functools.cached_property
    def size(self) -> int:
        """How many runs a call takes."""
        devices = self._like.devices.count
        at_once = self._like.config.train.together or (
            devices if jax.default_backend() == "cpu" else self.number)
        size = self._whole(min(at_once, self.number))
        while size > self._whole(1) and not self._fits(size):
            size = self._whole(size // 2)
        return size

    def seconds_compiling(self) -> float:
        """How long compiling took since this was asked last, if it had to be done."""
        self._compile(self.size)
        seconds, self._seconds_compiling = self._seconds_compiling, 0.0
        return seconds

    def __call__(
        self, runs: Sequence[Run], orders: Sequence[jax.Array], counts: Sequence[int]
    ) -> list[Steps]:
        """Advances each run by its count of steps, waits, and gives each one's report.

        Args:
          runs: at most `size`.
          orders: of each run's epoch, see `Run.order`.
          counts: within one epoch; 0 leaves a run as it is.
        """
        like, compiled = self._like, self._compile(self.size)
        replicate = like.devices.replicate
        if self.size == 1:
            (run,), (order,), (count,) = runs, orders, counts
            run.state, report = compiled(
                run.state, like.examples, order, self._places(1),
                replicate(Streams.of(run.config.seed)), replicate(np.int32(count)))
            return [jax.device_get(report)]
        missing = self.size - len(runs)
        while len(self._spare) < missing:
            self._spare.append(jax.tree.map(jnp.copy, runs[0].state))
        states = [*(run.state for run in runs), *self._spare[:missing]]
        seeds = [run.config.seed for run in runs] + [0] * missing
        states, report = compiled(
            states, like.examples, jnp.stack([*orders, *[orders[0]] * missing]),
            self._places(self.size), replicate(_stack([Streams.of(seed) for seed in seeds])),
            replicate(np.array([*counts, *[0] * missing], np.int32)))
        for run, state in zip(runs, states, strict=False):
            run.state = state
        self._spare[:missing] = states[len(runs):]
        report = jax.device_get(report)
        return [jax.tree.map(lambda values, place=place: values[place], report)
                for place in range(len(runs))]

    def _places(self, size: int) -> Any:
        """Of the global batch: spread over the devices, or of several runs whole on each."""
        like = self._like
        if size == 1:
            return all_places(like.task, like.devices)
        return like.devices.replicate(np.arange(like.task.plan.rows, dtype=np.int32))

    def _whole(self, size: int) -> int:
        """A size of at least one run; of several, as many on each device."""
        devices = self._like.devices.count
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
            like = self._like
            replicate, order = like.devices.replicate, like.order(0)
            streams, count = Streams.of(like.config.seed), np.int32(1)
            if size == 1:
                steps = functools.partial(
                    parallel_steps(like.task, like.devices).lower, like.state, like.examples,
                    order, self._places(1), replicate(streams), replicate(count))
            else:
                steps = functools.partial(
                    parallel_steps_of_runs(like.task, like.devices, size).lower,
                    [like.state] * size, like.examples, jnp.stack([order] * size),
                    self._places(size), replicate(_stack([streams] * size)),
                    replicate(np.full(size, count)))
            compiled = compile_with_onednn(steps)
            if size == self._whole(1):  # no smaller one can take its place
                needs = compiled.memory_analysis()
                check_memory(
                    needs.output_size_in_bytes + needs.temp_size_in_bytes
                    - needs.alias_size_in_bytes,
                    f"a train step with train.batch_size={like.config.train.batch_size}")
            self._compiled[size] = compiled
            _give_back_freed_memory()
            self._seconds_compiling += time.perf_counter() - start
        return self._compiled[size]


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _memory_of_device() -> int | None:
    """Bytes that one device has; None where it does not tell, as on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


def _give_back_freed_memory() -> None:
    """Gives the system what compilers have freed, 100 MB, which glibc keeps for their threads."""
    with contextlib.suppress(AttributeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)
