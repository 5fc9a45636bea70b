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
import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxdigits.models.onednn import compile_with_onednn
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.memory import check_memory
from flaxdigits.training.parallel import all_positions, parallel_steps, parallel_steps_of_runs
from flaxdigits.training.state import TrainState
from flaxdigits.training.step import StepMetrics, Streams

MEMORY_SHARE = 0.9  # of a device's memory that a program may take; the rest is for scoring


@dataclasses.dataclass(frozen=True)
class StepRequest:
    """The train steps that a run needs next, all of one epoch.

    Attributes:
      seed: of the run.
      step: the number of steps done.
      state: after them; it is donated to the compiled steps.
      order: of the epoch's examples, see `Experiment.order`.
      max_count: how many steps may be made before something is due.
    """

    seed: int
    step: int
    state: TrainState
    order: jax.Array
    max_count: int


@dataclasses.dataclass(frozen=True)
class StepReply:
    """The train steps that were made.

    Attributes:
      state: after them.
      metrics: of these steps.
      rate: steps per second.
      seconds_training: the run's share of the time.
      seconds_compiling: the run's share of the time before its first steps.
    """

    state: TrainState
    metrics: StepMetrics
    rate: float
    seconds_training: float
    seconds_compiling: float


class TrainProgram:
    """The compiled train steps of several runs.

    Args:
      experiment: of any of the runs; gives what they share.
      number: how many runs there are in all.
      memory: bytes of each device; None: what the device reports, if it does.
    """

    def __init__(self, experiment: Experiment, number: int, memory: int | None = None) -> None:
        self._experiment, self._number = experiment, number
        self._memory = _memory_of_device() if memory is None else memory
        self._compiled: dict[int, Any] = {}
        self._spare: dict[int, TrainState] = {}  # for positions of the call without a run
        self._seconds_compiling = 0.0

    @functools.cached_property
    def size(self) -> int:
        """How many runs a call advances."""
        devices = self._experiment.devices.count
        at_once = self._experiment.config.train.seeds_per_call or (
            devices if jax.default_backend() == "cpu" else self._number)
        size = self._round_up(min(at_once, self._number))
        while size > self._round_up(1) and not self._fits(size):
            size = self._round_up(size // 2)
        return size

    def compile(self) -> None:
        """Compiles the program, unless it is compiled."""
        self._compile(self.size)

    def seconds_compiling(self) -> float:
        """Compiles if necessary, and returns the seconds since the last call of this method."""
        self.compile()
        seconds, self._seconds_compiling = self._seconds_compiling, 0.0
        return seconds

    def __call__(
        self, requests: Sequence[StepRequest | None], counts: Sequence[int]
    ) -> list[tuple[TrainState, StepMetrics]]:
        """Makes the train steps of each run, and waits for them.

        Args:
          requests: of at most `size` runs, whose states are donated; None: no run at this
            position.
          counts: how many steps, within one epoch; 0 leaves a run as it is.

        Returns:
          The new state and the metrics of the steps, at the position of each request.
        """
        experiment, compiled = self._experiment, self._compile(self.size)
        replicate = experiment.devices.replicate
        if self.size == 1:
            (request,), (count,) = requests, counts
            state, metrics = compiled(
                request.state, experiment.examples, request.order, self._positions(1),
                replicate(Streams.of(request.seed)), replicate(np.int32(count)))
            return [(state, jax.device_get(metrics))]
        requests = [*requests, *[None] * (self.size - len(requests))]
        first = next(request for request in requests if request is not None)
        states, filled = [], []
        for position, request in enumerate(requests):
            if request is None and position not in self._spare:
                self._spare[position] = jax.tree.map(jnp.copy, first.state)
            states.append(self._spare[position] if request is None else request.state)
            filled.append(first if request is None else request)
        states, metrics = compiled(
            states, experiment.examples, jnp.stack([request.order for request in filled]),
            self._positions(self.size),
            replicate(_stack([Streams.of(request.seed) for request in filled])),
            replicate(np.array([*counts, *[0] * (self.size - len(counts))], np.int32)))
        metrics = jax.device_get(metrics)
        for position, request in enumerate(requests):
            if request is None:
                self._spare[position] = states[position]
        return [(state, jax.tree.map(lambda values, position=position: values[position], metrics))
                for position, state in enumerate(states)]

    def _positions(self, size: int) -> Any:
        """Returns the positions of the global batch; of several runs, replicated."""
        experiment = self._experiment
        if size == 1:
            return all_positions(experiment.task, experiment.devices)
        return experiment.devices.replicate(np.arange(experiment.task.plan.rows, dtype=np.int32))

    def _round_up(self, size: int) -> int:
        """Rounds a number of runs up to the same number on every device."""
        devices = self._experiment.devices.count
        return 1 if self._number == 1 else -(-max(size, 1) // devices) * devices

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
            experiment = self._experiment
            # Shapes suffice to compile, but `jax.pmap` of several processes converts its arguments.
            is_pmap = experiment.config.train.parallel == "pmap"
            state = experiment.initial_state() if is_pmap else experiment.state_shapes
            replicate, order = experiment.devices.replicate, experiment.order(0)
            streams, count = Streams.of(experiment.config.seed), np.int32(1)
            if size == 1:
                steps = functools.partial(
                    parallel_steps(experiment.task, experiment.devices).lower,
                    state, experiment.examples, order, self._positions(1),
                    replicate(streams), replicate(count))
            else:
                steps = functools.partial(
                    parallel_steps_of_runs(experiment.task, experiment.devices, size).lower,
                    [state] * size, experiment.examples, jnp.stack([order] * size),
                    self._positions(size), replicate(_stack([streams] * size)),
                    replicate(np.full(size, count)))
            compiled = compile_with_onednn(steps)
            if size == self._round_up(1):  # no smaller one can take its place
                needs = compiled.memory_analysis()
                check_memory(
                    needs.output_size_in_bytes + needs.temp_size_in_bytes
                    - needs.alias_size_in_bytes,
                    f"a train step with train.batch_size={experiment.config.train.batch_size}")
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
