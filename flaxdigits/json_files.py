"""Reads JSON files and checks their fields.

A file on disk may have any content. The readers return values of the expected kinds, or raise an
error of one line that names the file and the field.
"""

import dataclasses
import json
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flaxdigits.errors import FlaxdigitsError, quoted

MAX_NESTING = 32  # levels of lists and objects


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of JSON value.

    Attributes:
      description: the end of the error message "must be ...", such as `a string`.
      fits: returns whether a JSON value is of this kind.
    """

    description: str
    fits: Callable[[Any], bool]

    def __or__(self, other: "Kind") -> "Kind":
        """Returns the kind of the values that are of this kind or of the other."""
        return Kind(f"{self.description} or {other.description}",
                    lambda value: self.fits(value) or other.fits(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def _is_measure(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1e15  # False for NaN


NULL = Kind("null", lambda value: value is None)
STRING = Kind("a string", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
COUNT = Kind("a non-negative integer", lambda value: _is_count(value, 0))
POSITIVE_COUNT = Kind("a positive integer", lambda value: _is_count(value, 1))
MEASURE = Kind("a non-negative number", _is_measure)
# Bounded such that the reciprocal of a positive measure is a measure, too.
POSITIVE_MEASURE = Kind("a positive number", lambda value: _is_measure(value) and value > 1e-15)
FRACTION = Kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
NUMBER = Kind("a number", _is_number)  # includes NaN and infinity, which a loss may be
STRINGS = Kind("a list of strings", lambda value: isinstance(value, list) and all(
    isinstance(item, str) for item in value))
OBJECT_OF_STRINGS = Kind(
    "an object with string values", lambda value: isinstance(value, dict) and all(
        isinstance(item, str) for item in value.values()))


def read_bytes(path: Path, advice: str) -> bytes:
    """Returns the content of a regular file.

    Args:
      path: the path of the file.
      advice: what the user can do about an error; the end of the error message.

    Raises:
      FlaxdigitsError: if the file is not a regular file (reading a pipe may never end), or cannot
        be read.
      FileNotFoundError: if the file does not exist.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise FlaxdigitsError(f"{path}: cannot be read: it is {what}; {advice}")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(str(path)) from error
    except OSError as error:
        raise FlaxdigitsError(
            f"{path}: cannot be read: {error.strerror or error}; {advice}") from error


def read_object(path: Path, advice: str) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Args:
      path: the path of the file.
      advice: what the user can do about an error; the end of the error message.

    Raises:
      FlaxdigitsError: if the file cannot be read, or its content is not a JSON object.
      FileNotFoundError: if the file does not exist.
    """
    try:
        return parse_object(read_bytes(path, advice))
    except ValueError as error:
        raise FlaxdigitsError(f"{path}: cannot be read: {error}; {advice}") from error


def read_rows(path: Path, advice: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yields (line number, JSON object) for each line of a file; None for a damaged line.

    A line is damaged if it is not JSON; a line with a JSON value other than an object is an error.
    An incomplete last line of a process that was killed is skipped.

    Args:
      path: the path of the file; nothing is yielded if it does not exist.
      advice: what the user can do about an error; the end of the error message.

    Raises:
      FlaxdigitsError: if the file cannot be read, or a line is not a JSON object.
    """
    try:
        content = read_bytes(path, advice)
    except FileNotFoundError:
        return
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, parse_object(line)
        except (UnicodeDecodeError, json.JSONDecodeError):
            if number < len(lines):
                yield number, None
        except ValueError as error:
            raise FlaxdigitsError(f"{path}, line {number}: {error}; {advice}") from error


def parse_object(content: bytes) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
      ValueError: if the content is not a JSON object, is nested more than `MAX_NESTING` levels
        deep, or contains a number or a string that cannot be printed or written again.
    """
    try:
        value = json.loads(content.decode())
    except RecursionError:
        raise ValueError(f"nested more than {MAX_NESTING} levels deep") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise
    except ValueError:  # Python's limit on the digits of a number
        raise ValueError("an integer with too many digits") from None
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        level = [child for node in level for child in _children(node)]
        for child in level:
            if isinstance(child, str):
                _check_string(child)
            elif isinstance(child, int) and not -2**63 <= child < 2**63:
                raise ValueError("an integer that does not fit into 64 bits")
    if level:
        raise ValueError(f"nested more than {MAX_NESTING} levels deep")
    return value


def check_fields(values: Mapping[str, Any], kinds: Mapping[str, Kind], optional: bool) -> None:
    """Checks the fields of an object; fields that are not in `kinds` are ignored.

    Args:
      values: the object.
      kinds: the expected kinds by field name.
      optional: whether fields may be missing.

    Raises:
      ValueError: if a field is missing or its value is of another kind; the message names it.
    """
    for name, kind in kinds.items():
        if name not in values:
            if optional:
                continue
            raise ValueError(f"missing required field {name}")
        if not kind.fits(values[name]):
            raise ValueError(f"{name} must be {kind.description}, got {quoted(values[name])}")


def _children(node: Any) -> list[Any]:
    """Returns the items of a list, or the field names and values of an object."""
    if isinstance(node, dict):
        return [*node, *node.values()]
    return node if isinstance(node, list) else []


def _check_string(text: str) -> None:
    if "\0" in text:
        raise ValueError("a string with a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a string that is not Unicode: {quoted(text)}") from None
