"""Reads the JSON files of a run folder and checks the kinds of their fields."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flaxdigits.datasets import SPLITS
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.json_files import (
    COUNT,
    FLAG,
    FRACTION,
    MEASURE,
    NULL,
    NUMBER,
    OBJECT,
    OBJECT_OF_STRINGS,
    POSITIVE_COUNT,
    POSITIVE_MEASURE,
    STRING,
    STRINGS,
    Kind,
    check_fields,
    read_object,
    read_rows,
)

Check = Callable[[Mapping[str, Any]], None]

SCORES = {"accuracy": FRACTION, "loss": NUMBER, "errors": COUNT, "examples": POSITIVE_COUNT}

IMAGE_SHAPE = Kind("three positive integers", lambda value: (
    isinstance(value, list) and len(value) == 3
    and all(POSITIVE_COUNT.fits(size) and size <= 2**16 for size in value)))

CODE = Kind("a list of files with copy, path and sha256", lambda value: (
    isinstance(value, list) and all(
        isinstance(file, dict) and file.keys() >= {"copy", "path", "sha256"}
        and (STRING | NULL).fits(file["path"]) and STRING.fits(file["sha256"])
        and STRING.fits(file["copy"])
        and re.fullmatch(r"((?!\.+/)[^/\\]+/)*[^/\\]+\.py", file["copy"])
        and isinstance(file.get("imported", False), bool)
        for file in value)))

STEPS = Kind("a list of positive integers", lambda value: (
    isinstance(value, list) and all(map(POSITIVE_COUNT.fits, value))))

CONFIG = {"config": OBJECT, "data": OBJECT}
CONFIG_SECTIONS = {"data": OBJECT, "optimizer": OBJECT, "train": OBJECT}
CONFIG_PATHS = {"data": {"folder": STRING | NULL, "indices": STRING | NULL},
                "train": {"init_from": STRING | NULL}}
OPTIONAL_CONFIG = {"versions": OBJECT_OF_STRINGS, "git_commit": STRING | NULL, "machine": STRING,
                  "command": STRING, "init_from": STRING, "teacher": STRING, "code": CODE,
                  "first_length": OBJECT, "extended_at": STEPS}
DATA = {"dataset": STRING, "source": STRING, "fingerprint": STRING}
OPTIONAL_DATA = {"class_names": STRINGS, "official_train": COUNT | NULL, "validation": COUNT,
                "framing": OBJECT, "image_shape": IMAGE_SHAPE, "writers": STRING, "indices": STRING}
RESULT_FIELDS = {
    "experiment": STRING, "dataset": STRING, "data_source": STRING, "split": STRING, "seed": COUNT,
    "parameters": COUNT, "steps": POSITIVE_COUNT, "epochs": POSITIVE_MEASURE, "checkpoint": STRING,
    "checkpoint_step": POSITIVE_COUNT, "train_accuracy_running": FRACTION, "device": STRING,
    "deterministic": FLAG}
CLOCKS = {"seconds_compiling": MEASURE, "seconds_training": MEASURE, "seconds_evaluating": MEASURE,
          "steps_per_second": MEASURE}
ROW = {"step": COUNT}
OPTIONAL_ROW = {
    "epoch": COUNT, "train_loss": NUMBER, "train_accuracy": NUMBER, "learning_rate": NUMBER,
    "seconds_training": MEASURE, "validation_loss": NUMBER, "validation_accuracy": NUMBER,
    "gradient_norm": NUMBER, "update_norm": NUMBER, "parameter_norm": NUMBER}
SCORED_ROW = {"step": COUNT, "data_source": STRING, "fingerprint": STRING}
DIVERGED = {"step": COUNT, "message": STRING}

CONFIG_ADVICE = "restore it from a copy, or choose another workdir"
RESULT_ADVICE = "delete it and repeat the training command, which then evaluates the run again"
DIVERGED_ADVICE = ("delete it and repeat the training command, which then resumes the run from its "
                   "last checkpoint")
ROWS_ADVICE = "repair or delete the line"


def read_config(path: Path) -> dict[str, Any]:
    """Returns the content of a `config.json`.

    All fields are checked, except for the config, in which only the sections and paths are.

    Raises:
      FlaxdigitsError: if the file cannot be read, or a field is missing or of the wrong kind.
      FileNotFoundError: if the file does not exist.
    """
    values = read_object(path, CONFIG_ADVICE)
    _check_values(check_config, values, path, CONFIG_ADVICE)
    return values


def read_result(path: Path) -> dict[str, Any]:
    """Returns the content of a `result.json`.

    Raises:
      FlaxdigitsError: if the file cannot be read, or a field is missing or of the wrong kind.
      FileNotFoundError: if the file does not exist.
    """
    values = read_object(path, RESULT_ADVICE)

    def check(result: Mapping[str, Any]) -> None:
        check_result(result)
        check_fields(result, CLOCKS, optional=False)

    _check_values(check, values, path, RESULT_ADVICE)
    return values


def read_diverged(path: Path) -> dict[str, Any]:
    """Returns the content of a `diverged.json`.

    Raises:
      FlaxdigitsError: if the file cannot be read, or a field is missing or of the wrong kind.
      FileNotFoundError: if the file does not exist.
    """
    values = upgrade_diverged(read_object(path, DIVERGED_ADVICE))
    _check_values(check_diverged, values, path, DIVERGED_ADVICE)
    return values


def upgrade_diverged(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a `diverged.json` of any version with the current names of fields."""
    return {"message" if name == "told" else name: value for name, value in values.items()}


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Returns the rows of a `metrics.jsonl`, and the line numbers of the lines that are not JSON.

    Lines are numbered from 1. An incomplete last line is left out. There are no rows if the file
    does not exist.

    Raises:
      FlaxdigitsError: if the file cannot be read, a line is not a JSON object, or a field is
        missing or of the wrong kind.
    """
    def check(row: Mapping[str, Any]) -> None:
        check_fields(row, ROW, optional=False)
        check_fields(row, OPTIONAL_ROW, optional=True)

    return _rows(path, check)


def read_evaluations(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Returns the rows of an `eval.jsonl` in the same way as `read_metrics`.

    Raises:
      FlaxdigitsError: if the file cannot be read, a line is not a JSON object, or a field is
        missing or of the wrong kind.
    """
    def check(row: Mapping[str, Any]) -> None:
        check_fields(row, SCORED_ROW, optional=False)
        _check_scores(row)

    return _rows(path, check)


def check_config(values: Mapping[str, Any]) -> None:
    """Raises ValueError for the first field of a `config.json` that is missing or wrong.

    In the config itself, only the sections and paths are checked.
    """
    check_fields(values, CONFIG, optional=False)
    check_fields(values, OPTIONAL_CONFIG, optional=True)
    _check_within("data", values["data"], DATA, optional=False)
    _check_within("data", values["data"], OPTIONAL_DATA, optional=True)
    _check_within("config", values["config"], CONFIG_SECTIONS, optional=False)
    for section, paths in CONFIG_PATHS.items():
        _check_within(f"config.{section}", values["config"][section], paths, optional=True)


def _check_within(
    place: str, values: Mapping[str, Any], kinds: Mapping[str, Kind], optional: bool
) -> None:
    """Checks fields as `check_fields` does; the message also names the object that has them."""
    try:
        check_fields(values, kinds, optional)
    except ValueError as error:
        raise ValueError(f"in {place}: {error}") from error


def check_result(values: Mapping[str, Any]) -> None:
    """Raises ValueError for the first field of a result that is missing or wrong.

    The fields in `CLOCKS` are not checked.
    """
    check_fields(values, RESULT_FIELDS, optional=False)
    _check_scores(values)


def check_diverged(values: Mapping[str, Any]) -> None:
    """Raises ValueError for the first field of a `diverged.json` that is missing or wrong."""
    check_fields(values, DIVERGED, optional=False)


def _check_scores(values: Mapping[str, Any]) -> None:
    """Raises ValueError unless each split has all its scores.

    The scores of validation and test may instead all be null.
    """
    for split in SPLITS:
        kinds = {f"{split}_{name}": kind for name, kind in SCORES.items()}
        is_absent = split != "train" and all(values.get(name, 0) is None for name in kinds)
        if not is_absent:
            check_fields(values, kinds, optional=False)


def _rows(path: Path, check: Check) -> tuple[list[dict[str, Any]], list[int]]:
    """Returns the checked rows of a file, and the line numbers of the lines that are not JSON."""
    rows: list[dict[str, Any]] = []
    damaged: list[int] = []
    for number, row in read_rows(path, ROWS_ADVICE):
        if row is None:
            damaged.append(number)
            continue
        try:
            check(row)
        except ValueError as error:
            raise FlaxdigitsError(f"{path}, line {number}: {error}; {ROWS_ADVICE}") from error
        rows.append(row)
    return rows, damaged


def _check_values(check: Check, values: Mapping[str, Any], path: Path, advice: str) -> None:
    """Calls a check of the values of a file; adds the path and the advice to its error."""
    try:
        check(values)
    except ValueError as error:
        raise FlaxdigitsError(f"{path}: {error}; {advice}") from error
