"""Small runs that are disturbed, and the comparison with those that were left alone."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lab import OTHER, WRONG, Fault, Lab, check_success

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.checkpoints import Checkpoints, flat_arrays

STEPS = 40
CLOCKS = ("seconds_compiling", "seconds_training", "seconds_evaluating", "steps_per_second")

# It learns: all test images are read rightly, so that a damaged weight shows.
_SMALL = ("data.dataset=idx_files", "data.split=holdout", "data.preprocessing=unit",
          "model.filters=4", "model.dense=32", f"train.steps={STEPS}", "train.batch_size=16",
          "train.log_every=5", "checkpoint.every_steps=5", "optimizer.learning_rate=0.01")
_RECIPES = {
    "dropout": ("model.dropout=0.3",),
    "everything": (
        "model.dropout=0.2", "model.batch_norm=true", "train.ema_decay=0.9",
        "data.augmentation.shift=0.02", "data.augmentation.rotation=5",
        "data.augmentation.zoom=0.05", "checkpoint.keep=none"),
    "seeds": ("model.dropout=0.2", "model.batch_norm=true", "train.ema_decay=0.9"),
    "study": (),
}
RECIPES = tuple(_RECIPES)
_STUDY = '''"""Two rates."""

from flaxdigits.studies.study import Study


def get_study():
    return Study("dense_cnn", seeds=(0, 1), overrides={overrides},
                 variants={{"fast": ("optimizer.learning_rate=0.02",)}})
'''


def sets(assignments: Sequence[str]) -> list[str]:
    """Returns the flags that set these fields."""
    return [f"--set={assignment}" for assignment in assignments]


def recipe(lab: Lab, name: str) -> list[str]:
    """Returns the command line of a recipe but for --workdir."""
    overrides = (*_SMALL, f"data.folder={lab.data()}", *_RECIPES[name])
    if name != "study":
        own = ["--seeds=0..2"] if name == "seeds" else []
        return ["--experiment=dense_cnn", *sets(overrides), "--notensorboard", *own]
    study = lab.once("study-file", lambda folder: (folder / "rates.py").write_text(
        _STUDY.format(overrides=repr(overrides)))) / "rates.py"
    return [f"--ablation={study}"]


def reference(lab: Lab, name: str, *more: str) -> Path:
    """Returns the folder of a recipe's uninterrupted run."""
    def train(folder: Path) -> None:
        check_success(lab.launch(*recipe(lab, name), *more, f"--workdir={folder}"))

    plain = ("".join(filter(str.isalnum, flag)) for flag in more)
    return lab.once("-".join(["run", name, *plain]), train)


def evaluated(lab: Lab, run: Path) -> dict[int, dict[str, Any]]:
    """Returns what an uninterrupted evaluation says of every checkpoint of a reference."""
    def score(folder: Path) -> None:
        copy = link_copy(run, folder / "run")
        check_success(lab.launch("--mode=eval", "--checkpoint=all", f"--workdir={copy}"))

    folder = lab.once(f"eval-{run.name}", score)
    return {row["step"]: row for row in json_rows(folder / "run" / "eval.jsonl")}


def link_copy(source: Path, target: Path) -> Path:
    """Copies a folder: array data as links, which nothing changes in place, the rest anew."""
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return target


def json_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines that are whole."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def without_clocks(values: dict[str, Any]) -> dict[str, Any]:
    """Returns what two equal runs have in common."""
    return {name: value for name, value in values.items() if name not in CLOCKS}


def result_of(run: Path) -> dict[str, Any]:
    """Returns `result.json` but for the clocks; raises Fault if it is missing."""
    if not (run / "result.json").exists():
        raise Fault(OTHER, f"{run.name}: ended with status 0 and without result.json")
    return without_clocks(json.loads((run / "result.json").read_text()))


def arrays_of(run: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a run's newest checkpoint."""
    try:
        checkpoints = Checkpoints(run / "checkpoints", access="read")
        try:
            return flat_arrays(checkpoints.restore_arrays(checkpoints.last()))
        finally:
            checkpoints.close()
    except FlaxdigitsError as error:
        raise Fault(OTHER, f"complete, and its newest checkpoint cannot be read: {error}") from None


def check_same(run: Path, expected: Path) -> None:
    """Raises Fault unless all runs below two folders are bitwise equal, clocks aside."""
    for path in sorted(expected.rglob("result.json")):
        check_same_run(run / path.parent.relative_to(expected), path.parent)


def check_same_run(run: Path, expected: Path) -> None:
    """Raises Fault unless results, rows, config and parameters are equal."""
    if not (run / "config.json").exists():
        raise Fault(OTHER, f"{run.name}: complete without config.json")
    if result_of(run) != result_of(expected):
        raise Fault(WRONG, f"{run.name}: another result.json than the uninterrupted run's")
    rows, wanted = ([without_clocks(row) for row in json_rows(folder / "metrics.jsonl")]
                    for folder in (run, expected))
    if rows != wanted:
        raise Fault(WRONG, f"{run.name}: {len(rows)} rows of metrics.jsonl that are not the "
                           f"{len(wanted)} of the uninterrupted run")
    arrays, wanted_arrays = arrays_of(run), arrays_of(expected)
    for name, array in wanted_arrays.items():
        if name not in arrays or not np.array_equal(arrays[name], array):
            raise Fault(WRONG, f"{run.name}: {name} is not that of the uninterrupted run")


def count_rows(run: Path) -> int:
    """Returns how many rows of metrics all runs below a folder have."""
    return sum(path.read_bytes().count(b"\n") for pattern in
               ("metrics.jsonl", "seeds/*/metrics.jsonl", "*/seeds/*/metrics.jsonl")
               for path in run.glob(pattern))
