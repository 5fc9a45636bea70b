"""Times several processes in turn, so that other load on the machine affects all of them."""

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

from flaxdigits.benchmark.peers import MAX_STEPS
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress

ROUNDS = 5
SECONDS = 5.5  # duration of one timing, unless it would exceed MAX_STEPS
# Overrides for comparisons: Keras and PyTorch train without augmentation here.
PEER_OVERRIDES = ("data.augmentation=none",)


@dataclasses.dataclass(frozen=True)
class Timings:
    """The timings of one process.

    Attributes:
      facts: the properties that the process reported at its start, by name.
      milliseconds: the duration of a step in each round.
      peak_bytes: the peak memory of the process.
    """

    facts: dict[str, Any]
    milliseconds: list[float]
    peak_bytes: int

    @property
    def median(self) -> float:
        """The median duration of a step in milliseconds."""
        return statistics.median(self.milliseconds)


def share_gpu() -> None:
    """Makes JAX allocate GPU memory as needed, since several processes use the GPU.

    It must be called before any other use of JAX; processes that are started later inherit it.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def our_command(name: str, overrides: Sequence[str], dataset: Dataset) -> list[str]:
    """Returns the command of a process that times our train step on random images.

    The images have the shape and number of those of `dataset`.
    """
    sizes = (*dataset.images.shape, len(dataset.class_names), dataset.official_train or 0)
    return ["ours", name, *map(str, sizes), *overrides]


def compare(
    commands: Mapping[str, Sequence[str]], rounds: int = ROUNDS, seconds: float = SECONDS,
    progress: Progress = NO_PROGRESS,
) -> dict[str, Timings]:
    """Times train steps in several rounds, in which the processes take turns.

    Args:
      commands: the name of a module of `flaxdigits.benchmark` and its arguments, by label.
      rounds: the number of rounds.
      seconds: the duration of a timing of the first process. All processes are timed for the same
        number of steps, except that flaxdigits is timed for at most an epoch.
      progress: is notified of each process that starts, and of each timing.

    Returns:
      The timings of each process by label.

    Raises:
      FlaxdigitsError: if a process ends before it has answered.
    """
    with contextlib.ExitStack() as stack:
        workers, facts = {}, {}
        for number, (label, command) in enumerate(commands.items(), 1):
            # Each starts while the others are idle.
            with progress.stage(f"starting {label}, {number} of {len(commands)}"):
                workers[label] = stack.enter_context(_worker(command))
                facts[label] = _answer(workers[label], label)
        label, worker = next(iter(workers.items()))
        once = _time(worker, label, 1)["milliseconds"]
        steps = max(1, min(MAX_STEPS, round(seconds * 1000 / once)))
        answers = []
        for number in range(1, rounds + 1):
            answers.append({})
            for label, worker in workers.items():
                with progress.stage(f"timing {label}, round {number} of {rounds}"):
                    answers[-1][label] = _time(worker, label, steps)
    return {label: Timings(
        facts[label], [answer[label]["milliseconds"] for answer in answers],
        answers[-1][label]["peak_bytes"]) for label in commands}


@contextlib.contextmanager
def _worker(command: Sequence[str]) -> Iterator[subprocess.Popen]:
    module, *arguments = command
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            [sys.executable, "-m", f"flaxdigits.benchmark.{module}", *arguments], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process:
        process.stderr = errors
        try:
            yield process
        finally:
            process.kill()


def _time(worker: subprocess.Popen, label: str, steps: int) -> dict[str, Any]:
    with contextlib.suppress(BrokenPipeError):  # reported by `_answer`
        worker.stdin.write(f"{steps}\n")
        worker.stdin.flush()
    return _answer(worker, label)


def _answer(worker: subprocess.Popen, label: str) -> dict[str, Any]:
    line = worker.stdout.readline()
    if not line:
        worker.wait()
        worker.stderr.seek(0)
        lines = worker.stderr.read().strip().splitlines() or ["it printed no error"]
        raise FlaxdigitsError(f"the benchmark of {label} failed: {lines[-1]}")
    return json.loads(line)
