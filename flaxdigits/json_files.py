"""JSON files as they are read: regular files of plain JSON whose fields are checked.

A file on disk may hold anything. Whatever it holds, a reader here returns values of the kinds that
its caller names, or raises one line that says which file and which field is wrong.
"""

import dataclasses
import json
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flaxdigits.errors import FlaxdigitsError, quoted

MOST_NESTED = 32  # levels of lists and objects


@dataclasses.dataclass(frozen=True)
class Kind:
    """The kind of value that a field holds.

    Attributes:
      description: completes "must be ...".
      fits: whether a JSON value is of this kind.
    """

    description: str
    fits: Callable[[Any], bool]

    def __or__(self, other: "Kind") -> "Kind":
        """Returns the kind of the values that are of either kind."""
        return Kind(f"{self.description} or {other.description}",
                    lambda value: self.fits(value) or other.fits(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def _is_measure(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1e15  # which no NaN is


NULL = Kind("null", lambda value: value is None)
TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
COUNT = Kind("a whole number from 0", lambda value: _is_count(value, 0))
POSITIVE_COUNT = Kind("a whole number from 1", lambda value: _is_count(value, 1))
MEASURE = Kind("a number from 0", _is_measure)
POSITIVE_MEASURE = Kind("a number above 0", lambda value: _is_measure(value) and value > 1e-15)
FRACTION = Kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
NUMBER = Kind("a number", _is_number)  # NaN and the infinities too, as a loss may be
TEXTS = Kind("a list of texts", lambda value: isinstance(value, list) and all(
    isinstance(one, str) for one in value))
OBJECT_OF_TEXTS = Kind("an object of texts", lambda value: isinstance(value, dict) and all(
    isinstance(one, str) for one in value.values()))


def read_bytes(path: Path, advice: str) -> bytes:
    """Returns the content of a regular file.

    Args:
      path: of the file.
      advice: what the reader of the error can do.

    Raises:
      FlaxdigitsError: if it is not a regular file (a pipe would never end), or cannot be read.
      FileNotFoundError: if there is nothing of this name.
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
    """Returns the JSON object that a file holds.

    Args:
      path: of the file.
      advice: what the reader of the error can do.

    Raises:
      FlaxdigitsError: if it cannot be read, or holds something else.
      FileNotFoundError: if there is nothing of this name.
    """
    try:
        return parse_object(read_bytes(path, advice))
    except ValueError as error:
        raise FlaxdigitsError(f"{path}: cannot be read: {error}; {advice}") from error


def read_rows(path: Path, advice: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yields the number and the JSON object of each line of a file; None of a damaged line.

    A line is damaged if it is no JSON at all; a line of other JSON is an error. A last line that
    lacks its end, since its writer was killed, is left out.

    Args:
      path: of the file; nothing is yielded if there is none.
      advice: what the reader of the error can do.

    Raises:
      FlaxdigitsError: if the file cannot be read, or a line holds no object.
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
    """Returns the JSON object that these bytes are.

    Raises:
      ValueError: if they are something else, are nested deeper than any file of ours, or hold a
        number or a text that cannot be printed or written again.
    """
    try:
        value = json.loads(content.decode())
    except RecursionError:
        raise ValueError(f"nested more than {MOST_NESTED} levels deep") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise
    except ValueError:  # Python's limit on the digits of a number
        raise ValueError("a whole number of too many digits") from None
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    level: list[Any] = [value]
    for _ in range(MOST_NESTED):
        level = [one for node in level for one in _inside(node)]
        for one in level:
            if isinstance(one, str):
                _check_text(one)
            elif isinstance(one, int) and not -2**63 <= one < 2**63:
                raise ValueError(f"a whole number of {len(str(abs(one)))} digits")
    if level:
        raise ValueError(f"nested more than {MOST_NESTED} levels deep")
    return value


def check_fields(values: Mapping[str, Any], kinds: Mapping[str, Kind], may_lack: bool) -> None:
    """Checks the fields of an object; fields of other names may hold anything.

    Args:
      values: the object.
      kinds: by the names of the fields.
      may_lack: whether a field may be missing.

    Raises:
      ValueError: naming the first field that is missing, or holds a value of another kind.
    """
    for name, kind in kinds.items():
        if name not in values:
            if may_lack:
                continue
            raise ValueError(f"lacks the field {name}")
        if not kind.fits(values[name]):
            raise ValueError(f"{name} must be {kind.description}, got {quoted(values[name])}")


def _inside(node: Any) -> list[Any]:
    """Returns the values within a list or an object, and the names of an object's fields."""
    if isinstance(node, dict):
        return [*node, *node.values()]
    return node if isinstance(node, list) else []


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a text with a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a text that is not Unicode: {quoted(text)}") from None
