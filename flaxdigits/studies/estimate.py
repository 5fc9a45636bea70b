"""Estimates how long a run takes by timing some of its steps and evaluating a few images."""

import dataclasses
import time

from flaxdigits.training.program import Program
from flaxdigits.training.run import Run

SECONDS = 1.0  # of training steps to time
IMAGES = 320  # to evaluate


@dataclasses.dataclass(frozen=True)
class Cost:
    """The seconds that a run takes; seeds of the same config are compiled only once."""

    compiling: float
    training_and_scoring: float


def measure_cost(run: Run) -> Cost:
    """Measures the cost of a run by training its first steps.

    Args:
      run: a new run. Its state is changed and cannot be used afterwards.
    """
    program, order = Program(run, 1), run.order(0)
    compiling = program.seconds_compiling()
    count, seconds = 1, 0.0
    program([run], [order], [count])  # warm-up
    while True:
        start = time.perf_counter()
        program([run], [order], [count])
        seconds = time.perf_counter() - start
        if seconds >= SECONDS / 4 or count >= run.steps_per_epoch:
            break
        count = min(2 * count, run.steps_per_epoch)
    training = run.total_steps * seconds / count
    index = next(iter(run.splits.values()))[:IMAGES]
    for _ in range(2):  # the first compiles
        start = time.perf_counter()
        run.logits(run.state.variables(), run.examples.images, index)
        scoring = (time.perf_counter() - start) / len(index)
    every = run.config.evaluate.every_steps or run.steps_per_epoch
    validations = run.total_steps // every * len(run.splits.get("validation", ()))
    images = validations + sum(map(len, run.splits.values()))
    return Cost(compiling, training + images * scoring)
