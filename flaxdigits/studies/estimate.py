"""How long a run will take, from a second of its steps and a few of its images."""

import dataclasses
import time

from flaxdigits.training.program import Program
from flaxdigits.training.run import Run

SECONDS = 1.0  # of steps that are timed
IMAGES = 320  # that are scored


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of a run; compiling is needed once for all its seeds."""

    compiling: float
    training_and_scoring: float


def measure_cost(run: Run) -> Cost:
    """Trains the first steps of a fresh run, which is spent thereby."""
    program, order = Program(run, 1), run.order(0)
    compiling = program.seconds_compiling()
    count, seconds = 1, 0.0
    program([run], [order], [count])  # the first call warms up
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
