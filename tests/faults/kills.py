"""SIGKILL at random moments, to training and to evaluation."""

import functools
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lab import OTHER, WRONG, Case, Fault, Lab, check_success, single
from runs import (
    RECIPES,
    check_same,
    count_rows,
    evaluated,
    json_rows,
    link_copy,
    recipe,
    reference,
    without_clocks,
)

SHORT = ("dropout", 0), ("everything", 0)
TRAINING, EVALUATION = "SIGKILL while training", "SIGKILL while evaluating"


def cases(length: str) -> Iterator[Case]:
    """Yields 50 kills of training and 18 evaluations, or two of the one and one of the other."""
    pairs = [(name, number) for number in range(13) for name in RECIPES][:50]
    for name, number in pairs if length == "long" else SHORT:
        yield single(TRAINING, f"kill {name} {number}", functools.partial(kill_training, name))
    for number in range(18 if length == "long" else 1):
        yield single(EVALUATION, f"kill evaluation {number}", kill_evaluation)


def kill_training(name: str, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Kills a training at its start, after a row of metrics or while it reports, and repeats it."""
    expected = reference(lab, name)
    total, run = count_rows(expected), scratch / "run"
    flags = *recipe(lab, name), f"--workdir={run}"
    for _ in range(rng.randint(1, 2)):
        rows = rng.randint(0, total)
        process = lab.start(*flags)
        process.wait_until(lambda rows=rows: count_rows(run) >= rows)
        time.sleep(rng.uniform(0, 4) if rows == 0 else rng.uniform(0, 2) if rows == total
                   else rng.uniform(0, 0.1))
        process.process.kill()
        process.wait()
    check_success(lab.launch(*flags))
    check_same(run, expected)
    if name == "study" and not (run / "study.md").exists():
        raise Fault(OTHER, "the study ended without study.md")


def kill_evaluation(lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Kills evaluations of all checkpoints, and lets the last one end."""
    expected = reference(lab, "everything")
    wanted = evaluated(lab, expected)
    run = link_copy(expected, scratch / "run")
    flags = "--mode=eval", "--checkpoint=all", f"--workdir={run}"
    for _ in range(rng.randint(1, 3)):
        process = lab.start(*flags)
        rows = rng.randrange(len(wanted))
        process.wait_until(lambda rows=rows: len(json_rows(run / "eval.jsonl")) >= rows)
        time.sleep(rng.uniform(0, 0.1) if rows else rng.uniform(0, 4))
        process.process.kill()
        process.wait()
    check_success(lab.launch(*flags))
    found = json_rows(run / "eval.jsonl")
    counts = Counter(row["step"] for row in found)
    if set(counts) != set(wanted) or set(counts.values()) != {1}:
        raise Fault(OTHER, f"steps were not scored once each: {dict(counts)}")
    for row in found:
        if without_clocks(row) != without_clocks(wanted[row["step"]]):
            raise Fault(WRONG, f"another score of step {row['step']}: {row}")
