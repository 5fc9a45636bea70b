"""Records of finished runs, read from run folders or from small JSON files.

A record contains the contents of `config.json` and `result.json` without the timings, which depend
on the load of the machine.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.json_files import OBJECT, check_fields, read_object
from flaxdigits.training.run_files import (
    CLOCKS,
    check_config,
    check_diverged,
    check_result,
    upgrade_diverged,
)
from flaxdigits.training.run_folder import RunFolder

ADVICE = "repair it or delete it"


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The record of a run that finished or diverged.

    Attributes:
      path: the run folder or file that the record was read from.
      values: `config`, `data`, `versions`, `git_commit` and `machine` of `config.json`; and
        `result`, or `diverged` if the run diverged.
    """

    path: Path
    values: dict[str, Any]

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of `result.json` without the timings; None if the run diverged."""
        return self.values.get("result")

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.values["config"].get("seed", 0)

    @property
    def machine(self) -> str:
        """The machine, or if it was not recorded the device, that the run was trained on."""
        return self.values.get("machine") or (self.result or {}).get("device", "unknown")

    def file(self) -> bytes:
        """Returns the content of the JSON file of the record."""
        return (json.dumps(self.values, indent=1, ensure_ascii=False) + "\n").encode()


def read_record(path: str | os.PathLike[str]) -> RunRecord | None:
    """Reads the record of a run folder or file; returns None for an unfinished run.

    Raises:
      FlaxdigitsError: if the path cannot be read or is not a record, or the run was trained on
        synthetic data.
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
    return RunRecord(path, values)


def _values_of_run(folder: RunFolder) -> dict[str, Any] | None:
    """Returns the values of the record of a run; None if the run has not ended."""
    result, diverged = folder.result(), folder.diverged()
    if result is None and diverged is None:
        return None
    recorded = {name: value for name, value in folder.recorded().items() if name != "command"}
    return recorded | (
        {"diverged": diverged} if result is None else
        {"result": {name: value for name, value in result.items() if name not in CLOCKS}})


def _check(values: Mapping[str, Any]) -> None:
    """Checks that the values are the record of a run on real data.

    Raises:
      ValueError: naming the first invalid field.
      FlaxdigitsError: if the run was trained on synthetic data.
    """
    check_config(values)
    result = values.get("result")
    if result is None and values.get("diverged") is None:
        raise ValueError("is not the record of a run: expected the field result or diverged")
    if result is None:
        check_fields(values, {"diverged": OBJECT}, optional=False)
        check_diverged(upgrade_diverged(values["diverged"]))
    else:
        check_fields(values, {"result": OBJECT}, optional=False)
        try:
            check_result(result)
        except ValueError as error:
            raise ValueError(f"in result: {error}") from error
        if result["seed"] != values["config"].get("seed", 0):
            raise ValueError("its result is of another seed than its config")
    sources = [values["data"]["source"], *([result["data_source"]] if result else [])]
    if any(source != "real" for source in sources):
        raise FlaxdigitsError("was trained on synthetic data instead of the real data")
