"""Records of finished runs: read from run folders and small JSON files, kept as the latter.

A record holds what `config.json` and `result.json` hold, without the clocks, which tell more of
what else the machine did than of the run.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.json_files import OBJECT, check_fields, read_object
from flaxdigits.training.run_files import CLOCKS, check_config, check_diverged, check_result
from flaxdigits.training.run_folder import RunFolder

ADVICE = "repair it or take it away"


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


def read_record(path: str | os.PathLike[str]) -> Record | None:
    """The record of a run folder or file; None of a run that has not ended.

    Raises:
      FlaxdigitsError: if it cannot be read, is no record, or is of drawn data.
    """
    path = Path(path)
    if path.is_dir():
        values = _values_of_run(RunFolder(path))
        if values is None:
            return None
    else:
        try:
            values = read_object(path, ADVICE)
        except FileNotFoundError as error:
            raise FlaxdigitsError(f"{path}: cannot be read: there is no such file") from error
    try:
        _check(values)
    except ValueError as error:
        raise FlaxdigitsError(f"{error}; {ADVICE}") from error
    return Record(path, values)


def _values_of_run(folder: RunFolder) -> dict[str, Any] | None:
    result, diverged = folder.result(), folder.diverged()
    if result is None and diverged is None:
        return None
    return folder.recorded() | (
        {"diverged": diverged} if result is None else
        {"result": {name: value for name, value in result.items() if name not in CLOCKS}})


def _check(values: Mapping[str, Any]) -> None:
    """Checks that this is a record of a run on real data.

    Raises:
      ValueError: naming the first field that is wrong.
      FlaxdigitsError: if it is of drawn data.
    """
    check_config(values)
    result = values.get("result")
    if result is None and values.get("diverged") is None:
        raise ValueError("is no record of a run: expected the field result or diverged")
    if result is None:
        check_fields(values, {"diverged": OBJECT}, may_lack=False)
        check_diverged(values["diverged"])
    else:
        check_fields(values, {"result": OBJECT}, may_lack=False)
        try:
            check_result(result)
        except ValueError as error:
            raise ValueError(f"in result: {error}") from error
        if result["seed"] != values["config"].get("seed", 0):
            raise ValueError("its result is of another seed than its config")
    sources = [values["data"]["source"], *([result["data_source"]] if result else [])]
    if any(source != "real" for source in sources):
        raise FlaxdigitsError("was trained on drawn data, not the real")
