"""Compiles the train steps of one run, or of several that differ only in their seed or fold.

Everything in which such runs differ (state, order of the data, PRNG keys, number of steps) is an
argument of the program, so that one compilation serves them all. How many runs a call advances
depends on the device:

- On a CPU, one run per device at a time. Milliseconds per step and seed on two shared cores of an
  AMD EPYC (JAX 0.10.2, medians of three calls) for a single seed, for five under `lax.map`, and for
  five under `vmap`: `dense_cnn` 6.4, 5.9, 10.0; `mse_cnn` 3.8, 3.7, 4.9; `chinese_cnn` 86, 81, 115.
  `lax.map` gains little over one call for each seed, which returns the result of a seed as soon as
  it is complete; `vmap` (`train.seeds_per_call=5`) makes batched matrix products, which are slow on
  a CPU.
- On other devices, all runs that fit into memory, under `vmap`, sharded over the devices by seed.
  A small network leaves most of a GPU idle; several networks at once use more of it.

On a single CPU device the result of a seed is bitwise identical whether or not other seeds are
trained with it. On several devices XLA sums in a different order, and under `vmap` the products are
batched; in both cases the results are the same except for rounding. The number of runs that a call
advances depends on the total number of runs, not on how many are unfinished, so that a resumed run
is bitwise identical to the uninterrupted run.
"""

import contextlib
import ctypes
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
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

MEMORY_SHARE = 0.9  # the share of a device's memory for a program; the rest is for evaluation


@dataclasses.dataclass(frozen=True)
class StepRequest:
    """The train steps that a run needs next, all of the same epoch.

    Attributes:
      seed: the seed of the run.
      step: the number of completed steps.
      state: the train state after these steps; it is donated to the compiled steps.
      order: the order of the examples in the epoch, see `Experiment.epoch_indices`.
      max_steps: the number of steps until the run evaluates, logs, saves or starts an epoch.
    """

    seed: int
    step: int
    state: TrainState
    order: jax.Array
    max_steps: int


@dataclasses.dataclass(frozen=True)
class StepReply:
    """The result of the train steps that a run has requested.

    Attributes:
      state: the train state after the steps.
      metrics: the metrics of the steps.
      steps_per_second: the speed of the call.
      seconds_training: this run's share of the training time.
      seconds_compiling: this run's share of the compilation time, before its first steps.
    """

    state: TrainState
    metrics: StepMetrics
    steps_per_second: float
    seconds_training: float
    seconds_compiling: float


class TrainProgram:
    """The compiled train steps of one or several runs.

    Args:
      experiment: the experiment of any of the runs, for what they share.
      total_runs: the number of all runs.
      memory: the bytes of memory of each device; None: as reported by the device, or unlimited if
        it reports none.
    """

    def __init__(self, experiment: Experiment, total_runs: int, memory: int | None = None) -> None:
        self._experiment, self._total_runs = experiment, total_runs
        self._memory = _memory_of_device() if memory is None else memory
        self._compiled: dict[int, Any] = {}
        self._placeholder_states: dict[int, TrainState] = {}  # the states in slots without a run
        self._seconds_compiling = 0.0

    @functools.cached_property
    def runs_per_call(self) -> int:
        """The number of slots of a call, each of which advances one run."""
        devices = self._experiment.devices.count
        wanted = self._experiment.config.train.seeds_per_call or (
            devices if jax.default_backend() == "cpu" else self._total_runs)
        num_runs = self._round_up(min(wanted, self._total_runs))
        while num_runs > self._round_up(1) and not self._fits(num_runs):
            num_runs = self._round_up(num_runs // 2)
        return num_runs

    def seconds_compiling(self) -> float:
        """Compiles the train steps if necessary, and returns the seconds that compiling has taken.

        Seconds that an earlier call has returned are not included.

        Raises:
          FlaxdigitsError: if a train step needs more memory than is available.
        """
        self._compile(self.runs_per_call)
        seconds, self._seconds_compiling = self._seconds_compiling, 0.0
        return seconds

    @property
    def steps(self) -> Callable[..., tuple[Any, Any]]:
        """The compiled `train_steps` of `runs_per_call` runs; it takes the values of `arguments`.

        Raises:
          FlaxdigitsError: if a train step needs more memory than is available.
        """
        return self._compile(self.runs_per_call)

    def arguments(
        self, requests: Sequence[StepRequest | None], num_steps: Sequence[int]
    ) -> tuple[Any, ...]:
        """Returns the arguments of `steps`.

        Args:
          requests: the request of the run in each slot, for at most `runs_per_call` slots; None: a
            slot without a run. The states of the requests are donated.
          num_steps: the number of steps of the run in each slot, within one epoch; 0 leaves the run
            unchanged.
        """
        experiment, replicate = self._experiment, self._experiment.devices.replicate
        if self.runs_per_call == 1:
            (request,), (steps,) = requests, num_steps
            return (request.state, experiment.device_dataset, request.order, self._positions(1),
                    replicate(Streams.of(request.seed)), replicate(np.int32(steps)))
        requests = [*requests, *[None] * (self.runs_per_call - len(requests))]
        first = next(request for request in requests if request is not None)
        states, padded = [], []
        for slot, request in enumerate(requests):
            if request is None and slot not in self._placeholder_states:
                self._placeholder_states[slot] = jax.tree.map(jnp.copy, first.state)
            states.append(self._placeholder_states[slot] if request is None else request.state)
            padded.append(first if request is None else request)
        return (states, experiment.device_dataset, jnp.stack([request.order for request in padded]),
                self._positions(self.runs_per_call),
                replicate(_stack([Streams.of(request.seed) for request in padded])),
                replicate(np.array(
                    [*num_steps, *[0] * (self.runs_per_call - len(num_steps))], np.int32)))

    def results(
        self, requests: Sequence[StepRequest | None], output: tuple[Any, Any]
    ) -> list[tuple[TrainState, StepMetrics]]:
        """Waits until the steps have been computed.

        Args:
          requests: see `arguments`.
          output: the value of `steps`: the new states (a list, or one state if `runs_per_call` is
            1) and their metrics.

        Returns:
          The state and the metrics of each request, in the same order; for None, placeholders.
        """
        states, metrics = output[0], jax.device_get(output[1])
        if self.runs_per_call == 1:
            return [(states, metrics)]
        for slot, state in enumerate(states):
            if slot >= len(requests) or requests[slot] is None:
                self._placeholder_states[slot] = state
        return [(state, jax.tree.map(lambda values, slot=slot: values[slot], metrics))
                for slot, state in enumerate(states[:len(requests)])]

    def _positions(self, num_runs: int) -> Any:
        """Returns the positions of the examples in the global batch.

        Several runs use the same positions, which are replicated on every device.
        """
        experiment = self._experiment
        if num_runs == 1:
            return all_positions(experiment.task, experiment.devices)
        return experiment.devices.replicate(
            np.arange(experiment.task.plan.unpadded_batch_size, dtype=np.int32))

    def _round_up(self, num_runs: int) -> int:
        """Rounds a number of runs up, so that every device has the same number of them."""
        devices = self._experiment.devices.count
        return 1 if self._total_runs == 1 else -(-max(num_runs, 1) // devices) * devices

    def _fits(self, num_runs: int) -> bool:
        """Returns whether the program of `num_runs` runs fits into the memory of a device."""
        if self._memory is None:
            return True
        memory = self._compile(num_runs).memory_analysis()
        return MEMORY_SHARE * self._memory >= (
            memory.argument_size_in_bytes + memory.output_size_in_bytes
            + memory.temp_size_in_bytes - memory.alias_size_in_bytes)

    def _compile(self, num_runs: int) -> Any:
        """Returns the compiled train steps of `num_runs` runs, which are compiled only once."""
        if num_runs not in self._compiled:
            start = time.perf_counter()
            experiment = self._experiment
            # Shapes suffice to compile, but `jax.pmap` of several processes converts its arguments.
            is_pmap = experiment.config.train.parallel == "pmap"
            state = experiment.initial_state() if is_pmap else experiment.state_shapes
            replicate, order = experiment.devices.replicate, experiment.epoch_indices(0)
            streams, num_steps = Streams.of(experiment.config.seed), np.int32(1)
            if num_runs == 1:
                steps = functools.partial(
                    parallel_steps(experiment.task, experiment.devices).lower,
                    state, experiment.device_dataset, order, self._positions(1),
                    replicate(streams), replicate(num_steps))
            else:
                steps = functools.partial(
                    parallel_steps_of_runs(experiment.task, experiment.devices, num_runs).lower,
                    [state] * num_runs, experiment.device_dataset, jnp.stack([order] * num_runs),
                    self._positions(num_runs), replicate(_stack([streams] * num_runs)),
                    replicate(np.full(num_runs, num_steps)))
            compiled = compile_with_onednn(steps)
            if num_runs == self._round_up(1):  # fewer are never compiled
                memory = compiled.memory_analysis()
                check_memory(
                    memory.output_size_in_bytes + memory.temp_size_in_bytes
                    - memory.alias_size_in_bytes,
                    f"a train step with train.batch_size={experiment.config.train.batch_size}")
            self._compiled[num_runs] = compiled
            _trim_heap()
            self._seconds_compiling += time.perf_counter() - start
        return self._compiled[num_runs]


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _memory_of_device() -> int | None:
    """Returns the bytes of memory of one device; None if it reports no number, as on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


def _trim_heap() -> None:
    """Makes glibc release to the system the memory (about 100 MB) that the compilers have freed."""
    with contextlib.suppress(AttributeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)
