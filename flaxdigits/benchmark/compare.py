"""Times the processes of a comparison in turn, so that what disturbs the machine disturbs all."""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flaxdigits.benchmark.peers import MOST_STEPS
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError

ROUNDS = 5
SECONDS = 5.5  # of one timing, if the steps are not too many: several of the slowest ones
# The peers' train steps have no augmentation, so ours has none beside them.
ALIKE = ("data.augmentation=none",)


@dataclasses.dataclass(frozen=True)
class Timings:
    """Of one process.

    Attributes:
      facts: what its process said of itself.
      milliseconds: of a step, one of each round.
      peak_bytes: the most memory that its process has held.
    """

    facts: dict[str, Any]
    milliseconds: list[float]
    peak_bytes: int

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.milliseconds)


def our_command(name: str, overrides: Sequence[str], dataset: Dataset) -> list[str]:
    """The words of a process that times our train step, on noise in the shape of `dataset`."""
    sizes = (*dataset.images.shape, len(dataset.class_names), dataset.official_train or 0)
    return ["ours", name, *map(str, sizes), *overrides]


def compare(
    commands: Mapping[str, Sequence[str]], rounds: int = ROUNDS, seconds: float = SECONDS
) -> dict[str, Timings]:
    """Times train steps in turn, round after round, each in a process of its own.

    Args:
      commands: a module of `flaxdigits.benchmark` and its words, by a label.
      rounds: how many.
      seconds: how long a timing of the first of them shall take; of the others as many steps, of
        ours at most an epoch.

    Raises:
      FlaxdigitsError: if a process ends before it has answered.
    """
    with contextlib.ExitStack() as stack:
        workers, facts = {}, {}
        for label, words in commands.items():  # one after the other: each begins undisturbed
            workers[label] = stack.enter_context(_worker(words))
            facts[label] = _answer(workers[label], label)
        label, worker = next(iter(workers.items()))
        once = _time(worker, label, 1)["milliseconds"]
        steps = max(1, min(MOST_STEPS, round(seconds * 1000 / once)))
        answers = [{label: _time(worker, label, steps) for label, worker in workers.items()}
                   for _ in range(rounds)]
    return {label: Timings(
        facts[label], [answer[label]["milliseconds"] for answer in answers],
        answers[-1][label]["peak_bytes"]) for label in commands}


@contextlib.contextmanager
def _worker(words: Sequence[str]) -> Iterator[subprocess.Popen]:
    module, *arguments = words
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ  # they share a GPU
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            [sys.executable, "-m", f"flaxdigits.benchmark.{module}", *arguments], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            env=environment) as process:
        process.stderr = errors
        try:
            yield process
        finally:
            process.kill()


def _time(worker: subprocess.Popen, label: str, steps: int) -> dict[str, Any]:
    with contextlib.suppress(BrokenPipeError):  # its end is reported by `_answer`
        worker.stdin.write(f"{steps}\n")
        worker.stdin.flush()
    return _answer(worker, label)


def _answer(worker: subprocess.Popen, label: str) -> dict[str, Any]:
    line = worker.stdout.readline()
    if not line:
        worker.wait()
        worker.stderr.seek(0)
        lines = worker.stderr.read().strip().splitlines() or ["it said nothing"]
        raise FlaxdigitsError(f"the benchmark of {label} ended early: {lines[-1]}")
    return json.loads(line)
