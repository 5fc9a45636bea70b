"""Learning rates that are far too high: reported and recorded; other runs continue."""

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from lab import OTHER, WRONG, Case, Fault, Lab, check_message, check_refused, check_success, single
from runs import arrays_of, check_same_run, recipe, reference, sets

KIND = "divergence"
RATES = {
    "sgd": (1e3, 1e10, 1e20, 1e38), "adam": (1e3, 1e6, 1e20, 1e38),
    "rmsprop": (1e6, 1e20), "adadelta": (1e6, 1e38)}
STUDY = '''
from flaxdigits.studies.study import Study


def get_study():
    return Study("dense_cnn", seeds=(0,), overrides={overrides},
                 variants={{"wild": ("optimizer.name=sgd", "optimizer.learning_rate=1e38")}})
'''


def cases(length: str) -> Iterator[Case]:
    """Yields optimizers with rates of many sizes, seeds that all diverge, and a study's variant."""
    for name, rates in RATES.items():
        for rate in rates if length == "long" else rates[-1:] if name == "sgd" else ():
            yield single(KIND, f"{name} at {rate:g}", functools.partial(diverge, name, rate))
    yield single(KIND, "every seed", diverge_all)
    yield single(KIND, "a variant of a study", diverge_variant)


def diverge(name: str, rate: float, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Trains at a rate, twice: a complete run is finite, another is refused and recorded."""
    run = scratch / "run"
    flags = (*recipe(lab, "dropout"),
             *sets((f"optimizer.name={name}", f"optimizer.learning_rate={rate!r}")),
             f"--workdir={run}")
    first, again = lab.enter(*flags), lab.enter(*flags)
    for done in (first, again):
        check_message(done)
    if first.status != again.status:
        raise Fault(OTHER, f"{first}, and again: {again}")
    if first.status == 2:
        if not (run / "diverged.json").exists() or (run / "result.json").exists():
            raise Fault(OTHER, f"divergence was not recorded: {first}")
        return
    for path, array in arrays_of(run).items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise Fault(WRONG, f"complete, and {path} is not finite: {first}")


def diverge_all(lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Trains three seeds that all diverge: each is recorded, and the command says so."""
    done = lab.enter(*recipe(lab, "seeds"), *sets(("optimizer.name=sgd",
                     "optimizer.learning_rate=1e38")), f"--workdir={scratch / 'run'}")
    check_refused(done)
    recorded = sorted((scratch / "run").glob("seeds/*/diverged.json"))
    if len(recorded) != 3:
        raise Fault(OTHER, f"{len(recorded)} of 3 seeds are recorded as diverged: {done}")


def diverge_variant(lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Runs a study with a variant that diverges: the base is not disturbed, the table says it."""
    expected, run = reference(lab, "dropout"), scratch / "run"
    config = json.loads((expected / "config.json").read_text())["config"]
    overrides = tuple(flag.removeprefix("--set=") for flag in recipe(lab, "dropout")
                      if flag.startswith("--set="))
    (scratch / "wild.py").write_text(STUDY.format(overrides=repr(overrides)))
    check_success(lab.enter(f"--ablation={scratch / 'wild.py'}", f"--workdir={run}"))
    check_same_run(run / "base" / "seeds" / str(config["seed"]), expected)
    if not (run / "wild" / "seeds" / "0" / "diverged.json").exists():
        raise Fault(OTHER, "the variant is not recorded as diverged")
    if "diverged" not in (run / "study.md").read_text():
        raise Fault(OTHER, "the table does not say that the variant diverged")
