"""The identity of a run, by which its checkpoints are recognized."""

from collections.abc import Mapping
from typing import Any

from flaxdigits.config import RENAMED, flatten
from flaxdigits.training.digests import json_digest
from flaxdigits.training.run_folder import CHANGEABLE, TEACHER

# The paths of the data, the index file, the initial weights and the teacher do not identify a run:
# the fingerprint and the digests of their contents do.
PATHS = ("data.folder", "data.indices", "train.init_from", TEACHER)


def run_identity(recorded: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of everything that determines the result of a run.

    Args:
      recorded: `config`, `data` and `teacher` of the run, as `RunFolder.recorded` returns them. The
        `first_length` of a run that was extended replaces its current length, so that its
        identity stays the same.
    """
    first = {f"train.{name}": value for name, value in recorded.get("first_length", {}).items()}
    config = {name: _canonical(value)
              for name, value in (flatten(recorded["config"]) | first).items()
              if value is not None and RENAMED.get(name, name) not in (*CHANGEABLE, *PATHS)}
    data = {name: recorded["data"][name] for name in ("indices", "writers")
            if recorded["data"].get(name) is not None}
    teacher = {"teacher": recorded["teacher"]} if recorded.get("teacher") else {}
    return json_digest(
        {"config": config, "fingerprint": recorded["data"].get("fingerprint"), **data, **teacher})


def _canonical(value: Any) -> Any:
    """Converts values that count as equal, such as 1 and 1.0, or a tuple and a list, to the same.

    In a dictionary, None is the same as a missing field.
    """
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
