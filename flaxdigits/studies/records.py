"""Records of finished runs: read from run folders and small JSON files, kept as the latter.

A record holds what `config.json` and `result.json` hold, without the clocks, which tell more of
what else the machine did than of the run.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.studies.replication import FIGURES
from flaxdigits.training.run_folder import RunFolder

CLOCKS = ("seconds_compiling", "seconds_training", "seconds_evaluating", "steps_per_second")
NEEDED = {"dataset": str, "split": str, "device": str, "seed": int, "parameters": int, "steps": int,
          "train_examples": int, "epochs": int | float}


@dataclasses.dataclass(frozen=True)
class Record:
    """A run that ended.

    Attributes:
      path: where it was found.
      values: `config`, `data`, `versions`, `git_commit`, `machine` as `config.json` has them, and
        `result` or, of a run whose loss stopped being finite, `diverged`.
    """

    path: Path
    values: dict[str, Any]

    @property
    def result(self) -> dict[str, Any] | None:
        """What it came to; None if it diverged."""
        return self.values.get("result")

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.values["config"].get("seed", 0)

    @property
    def machine(self) -> str:
        """What it ran on."""
        return self.values.get("machine") or (self.result or {}).get("device", "not told")

    def file(self) -> bytes:
        """The content of the small file."""
        return (json.dumps(self.values, indent=1, ensure_ascii=False) + "\n").encode()


def read_record(path: Path) -> Record | None:
    """The record of a run folder or file; None of a run that has not ended.

    Raises:
      FlaxdigitsError: if it cannot be read, is no record, or is of drawn data.
    """
    if path.is_dir():
        folder = RunFolder(path)
        result, diverged = folder.result(), folder.diverged()
        if result is None and diverged is None:
            return None
        values = folder.recorded() | (
            {"diverged": diverged} if result is None else
            {"result": {name: value for name, value in result.items() if name not in CLOCKS}})
    else:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FlaxdigitsError(f"cannot be read: {error}") from error
    _check(values)
    return Record(path, values)


def _check(values: Any) -> None:
    """Raises FlaxdigitsError if this is no record of real data."""
    if not isinstance(values, dict) or not all(
            isinstance(values.get(name), dict) for name in ("config", "data")):
        raise FlaxdigitsError("is no record of a run: expected the fields config and data")
    result, ended = values.get("result"), values.get("result", values.get("diverged"))
    if not isinstance(ended, dict):
        raise FlaxdigitsError("is no record of a run: expected the field result or diverged")
    for name, kind in (("versions", dict), ("machine", str), ("git_commit", str)):
        if not isinstance(values.get(name), kind | None):
            raise FlaxdigitsError(f"{name} must be a {kind.__name__}, got {values[name]!r}")
    sources = [values["data"].get("source"), *([result.get("data_source")] if result else [])]
    if any(source != "real" for source in sources):
        raise FlaxdigitsError("was trained on drawn data, not the real")
    if result is None:
        return
    for name, kind in NEEDED.items():
        if not isinstance(result.get(name), kind):
            raise FlaxdigitsError(f"result.{name} is {result.get(name)!r}, which no run writes")
    for name in FIGURES:
        value = result.get(name)
        if value is not None and not (
                isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1):
            raise FlaxdigitsError(f"result.{name} must be a fraction, got {value!r}")
    if result["seed"] != values["config"].get("seed", 0):
        raise FlaxdigitsError("its result is of another seed than its config")
