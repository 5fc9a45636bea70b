"""The types, bounds and meanings of config fields: checks values, and describes fields."""

import dataclasses
import inspect
import math
import re
import types
import typing
from typing import Any, Literal

from flaxdigits.errors import FlaxdigitsError, quoted

SMALLEST_FLOAT32 = 2.0**-126  # smaller values are flushed to zero in the computation


def check(value: Any, hint: Any, field: dataclasses.Field, path: str) -> Any:
    """Checks the type and bounds of a value, and converts it to the type of its field.

    Lists are converted to tuples, and integers to floats in float fields.

    Args:
      value: the value.
      hint: the type of the field.
      field: the dataclass field, whose metadata contain the bounds.
      path: the dotted name of the field, for the error message.

    Returns:
      The converted value.

    Raises:
      FlaxdigitsError: if the value has another type or is out of bounds.
    """
    if not _fits(value, hint):
        raise FlaxdigitsError(f"{path} must be {describe(hint)}, got {quoted(value)}")
    value = _converted(value, hint)
    elements = value if isinstance(value, tuple) else (value,)
    for name, bound in field.metadata.get("bounds", {}).items():
        for element in elements:
            if element is not None and not _within(element, name, bound):
                raise FlaxdigitsError(f"{path} must be {name} {bound}, got {element}")
    for element in elements:
        if isinstance(element, int) and abs(element) >= 2**63:
            raise FlaxdigitsError(f"{path} must be a 64-bit integer, got {quoted(element)}")
        if isinstance(element, float) and 0 < abs(element) < SMALLEST_FLOAT32:
            raise FlaxdigitsError(
                f"{path} must be 0 or at least {SMALLEST_FLOAT32} in size, the smallest normal "
                f"float32, got {element}")
    return value


def _within(value: float, name: str, bound: float) -> bool:
    return {
        "at least": value >= bound, "above": value > bound,
        "at most": value <= bound, "below": value < bound,
    }[name]


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union type, or a tuple with only `hint` if it is not a union."""
    return typing.get_args(hint) if _is_union(hint) else (hint,)


def is_supported(hint: Any) -> bool:
    """Returns whether `--set` can parse values of a type and JSON can represent them."""
    if _is_union(hint):
        return all(not _is_union(part) and is_supported(part) for part in alternatives(hint))
    if typing.get_origin(hint) is Literal:
        return all(isinstance(choice, str) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[1:] == (...,) and typing.get_args(hint)[0] in (
            int, float, str, bool)
    return hint in (int, float, str, bool, type(None))


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a value has a type, or is one that `_converted` converts to the type."""
    if _is_union(hint):
        return any(_fits(value, part) for part in alternatives(hint))
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        return isinstance(value, list | tuple) and all(_fits(item, element) for item in value)
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) < math.inf and abs(value) < 10**300
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _converted(value: Any, hint: Any) -> Any:
    """Converts a value that fits a type: lists to tuples, and integers to floats."""
    if isinstance(value, list | tuple):
        chosen = next(part for part in alternatives(hint) if _fits(value, part))
        element = typing.get_args(chosen)[0]
        return tuple(_converted(item, element) for item in value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_number and int not in alternatives(hint) else value


def describe(hint: Any) -> str:
    """Returns a description of a type for error messages, such as `an integer or none`."""
    if _is_union(hint):
        return " or ".join(describe(part) for part in alternatives(hint))
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        example = "numbers like 32,64" if element in (int, float) else "values like a,b"
        return f"a list of {example} ({element.__name__})"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string",
             type(None): "none"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def describe_bounds(field: dataclasses.Field) -> str:
    """Returns the bounds of a field, such as `at least 0, below 1`; empty without bounds."""
    bounds = dict(field.metadata.get("bounds", {}))
    if bounds.get("below") == 2**31:  # every count has this bound
        del bounds["below"]
    return ", ".join(f"{name} {bound:,}" for name, bound in bounds.items())


def field_meanings(cls: type) -> dict[str, str]:
    """Returns the meaning of each field of a dataclass from the docstring of the class.

    The meanings are read from the sections `Attributes:` of the class and of its base classes. If a
    field is in several of them, the class itself takes precedence.
    """
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        lines = inspect.cleandoc(base.__dict__.get("__doc__") or "").splitlines()
        name = None
        for line in lines[lines.index("Attributes:") + 1:] if "Attributes:" in lines else ():
            if line and not line.startswith(" "):
                break  # the next section
            # "name: meaning" or "name (type): meaning", indented by 2 to 4 spaces.
            found = re.fullmatch(r" {2,4}(\w+)(?: \([^)]*\))?: (.*)", line)
            if found:
                name, meanings[found[1]] = found[1], found[2]
            elif name and line.strip():
                meanings[name] += f" {line.strip()}"
    return meanings
