"""Estimates how long a run takes by timing some of its steps and evaluating a few images."""

import dataclasses
import statistics
import time

import jax

from flaxdigits.training.experiment import Experiment
from flaxdigits.training.program import StepRequest, TrainProgram

SECONDS = 1.0  # about how long training steps are timed
IMAGES = 320  # the number of images that are evaluated


@dataclasses.dataclass(frozen=True)
class Cost:
    """The seconds that a run takes; `compiling` is spent only once for all seeds of a config."""

    compiling: float
    training_and_evaluating: float


def measure_cost(experiment: Experiment) -> Cost:
    """Measures the cost of a run by training its first steps and evaluating a few images."""
    program, steps_per_epoch = TrainProgram(experiment, 1), experiment.steps_per_epoch
    state, order = experiment.initial_state(), experiment.epoch_indices(0)
    compiling = program.seconds_compiling()

    def seconds_of(steps: int) -> float:
        """Trains some steps, and returns the seconds that they took."""
        nonlocal state
        start = time.perf_counter()
        request = StepRequest(experiment.config.seed, 0, state, order, steps)
        state, _ = jax.block_until_ready(program.steps(*program.arguments([request], [steps])))
        return time.perf_counter() - start

    seconds_of(1)  # warmup
    count, seconds = 1, seconds_of(1)
    while seconds < SECONDS / 4 and count < steps_per_epoch:
        count = min(2 * count, steps_per_epoch)
        seconds = seconds_of(count)
    seconds = statistics.median([seconds, seconds_of(count), seconds_of(count)])
    training = experiment.total_steps * seconds / count
    index = next(iter(experiment.splits.values()))[:IMAGES]
    per_image = 0.0
    for _ in range(2):  # the first call compiles
        start = time.perf_counter()
        experiment.logits_fn(state.variables(), experiment.device_dataset.images, index)
        per_image = (time.perf_counter() - start) / len(index)
    every = experiment.config.evaluate.every_steps or steps_per_epoch
    validations = experiment.total_steps // every * len(experiment.splits.get("validation", ()))
    images = validations + sum(map(len, experiment.splits.values()))
    return Cost(compiling, training + images * per_image)
