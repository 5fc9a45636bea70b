"""Runs of two and four processes, of which one is killed, stopped or never comes."""

import functools
import json
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab import HANG, OTHER, WRONG, Case, Fault, Lab, Running, check_message, single
from runs import count_rows, recipe, sets

KIND = "one of several processes lost"
SECONDS = 60.0  # in which the others have to end
# Long enough that the loss comes in the middle: about 10,000 steps.
LONG = sets(("train.steps=none", "train.epochs=2000", "train.log_every=20", "data.limit=64"))

# When it is lost: by what process 0 has written.
PHASES: dict[str, Callable[[Path], bool]] = {
    "start": lambda run: True,
    "connecting": lambda run: True,
    "config": lambda run: (run / "config.json").exists(),
    "training": lambda run: count_rows(run) >= 2,
    "saving": lambda run: any((run / "checkpoints").glob("*orbax*")),
    "report": lambda run: (run / "predictions.npz").exists(),
}


def cases(length: str) -> Iterator[Case]:
    """Yields each phase with two processes, some with four, and processes that never come."""
    if length == "short":
        yield single(KIND, "the last of 2 killed at training",
                     functools.partial(lose, 2, 1, signal.SIGKILL, "training"), waits=True)
        return
    chosen = [(2, victim, number, phase) for phase in PHASES for victim in (0, 1)
              for number in (signal.SIGKILL, signal.SIGSTOP)]
    chosen += [(4, victim, number, phase) for phase in ("config", "training") for victim in (0, 3)
               for number in (signal.SIGKILL, signal.SIGSTOP)]
    for count, victim, number, phase in chosen:
        what = "killed" if number == signal.SIGKILL else "stopped"
        yield single(KIND, f"process {victim} of {count} {what} at {phase}",
                     functools.partial(lose, count, victim, number, phase), waits=True)
    for count in (2, 4):
        for absent in (0, count - 1):
            yield single(KIND, f"process {absent} of {count} never comes",
                         functools.partial(never_come, count, absent), waits=True)


def start(lab: Lab, run: Path, count: int, but: int | None = None, *more: str) -> list[Running]:
    """Starts the processes of a run, all but one if it is named."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [lab.start(*recipe(lab, "everything"), *more, f"--workdir={run}",
                      f"--coordinator=localhost:{port}", f"--num_processes={count}",
                      f"--process_id={index}") for index in range(count) if index != but]


def lose(
    count: int, victim: int, number: int, phase: str, lab: Lab, rng: random.Random, scratch: Path
) -> None:
    """Loses one process in a phase; the others end soon, with one line."""
    run = scratch / "run"
    more = [] if phase == "report" else LONG
    processes = start(lab, run, count, None, *more)
    others = [process for index, process in enumerate(processes) if index != victim]
    if not processes[0].wait_until(lambda: PHASES[phase](run)):
        ends = [process.wait(SECONDS) for process in processes]
        raise Fault(OTHER, f"ended before {phase}: {ends[0]}")
    time.sleep(rng.uniform(2, 4) if phase == "connecting" else rng.uniform(0, 0.3))
    lost = processes[victim]
    if lost.is_running():
        lost.process.send_signal(number)
    try:
        check_end(others, run, is_done_well=phase == "report")
    finally:
        lost.process.kill()
        lost.wait()


def never_come(count: int, absent: int, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Starts all processes but one; they end soon, with one line."""
    check_end(start(lab, scratch / "run", count, absent, *LONG), scratch / "run", False)


def check_end(others: list[Running], run: Path, is_done_well: bool) -> None:
    """Raises Fault unless processes end in time with a line and another status than 0."""
    end = time.monotonic() + SECONDS
    ends = [process.wait(max(0.1, end - time.monotonic())) for process in others]
    for done in ends:
        if done.status is None:
            raise Fault(HANG, f"still there after {SECONDS:.0f} s: {done}")
    for done in ends:
        check_message(done, (0, 1, 2) if is_done_well else (1, 2))
    if any(done.status == 0 for done in ends) and (run / "result.json").exists():
        result = json.loads((run / "result.json").read_text())
        if result["steps"] <= 0:
            raise Fault(WRONG, f"a result of {result['steps']} steps")
