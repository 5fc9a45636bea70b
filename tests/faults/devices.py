"""Runs that are begun on some devices and go on with others, under jit and pmap."""

import functools
import itertools
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

from lab import WRONG, Case, Fault, Lab, check_success, single
from runs import STEPS, recipe, reference, sets

KIND = "restored on other devices"
COUNTS = (1, 2, 3, 4)
# Adam amplifies rounding; how near plain SGD stays is what says that the same is computed.
SGD = sets(("optimizer.name=sgd", "optimizer.learning_rate=0.05"))
NEAR = 1e-2  # relative, of the loss at the end


def cases(length: str) -> Iterator[Case]:
    """Yields each pair of different counts, under jit and under pmap."""
    pairs = list(itertools.permutations(COUNTS, 2))
    for kind in ("jit", "pmap") if length == "long" else ("jit",):
        for first, then in pairs if length == "long" else [(1, 3)]:
            yield single(KIND, f"{kind} on {first}, then {then}",
                         functools.partial(restore, kind, first, then))


def restore(
    kind: str, first: int, then: int, lab: Lab, rng: random.Random, scratch: Path
) -> None:
    """Pauses a run on some devices, ends it on others, and compares it with one on one device."""
    expected = reference(lab, "everything", *SGD)
    flags = (*recipe(lab, "everything"), *SGD, f"--set=train.parallel={kind}",
             f"--workdir={scratch / 'run'}")
    stop = rng.randrange(1, STEPS)
    check_success(lab.launch(*flags, f"--set=train.stop_after={stop}",
                         env={"JAX_NUM_CPU_DEVICES": str(first)}))
    check_success(lab.launch(*flags, env={"JAX_NUM_CPU_DEVICES": str(then)}))
    found, wanted = (json.loads((folder / "result.json").read_text())
                     for folder in (scratch / "run", expected))
    for name in ("train_loss", "validation_loss", "test_loss"):
        if not math.isclose(found[name], wanted[name], rel_tol=NEAR):
            raise Fault(WRONG, f"paused at {stop}: {name} {found[name]}, {wanted[name]} on one")
