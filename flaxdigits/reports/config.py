"""The fields of a config with their values, meanings, bounds and choices, as a table."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from flaxdigits.components import Component
from flaxdigits.config import ExperimentConfig, is_component, is_component_list, join
from flaxdigits.datasets import DATASETS
from flaxdigits.field_types import describe, describe_bounds, field_meanings


@dataclasses.dataclass(frozen=True)
class ConfigField:
    """A field of a config.

    Attributes:
      name: the dotted name, as for `--set`.
      value: the value, as for `--set`.
      meaning: the meaning, from the docstring of the class; empty if it has none.
      values: the type, bounds or choices.
    """

    name: str
    value: str
    meaning: str
    values: str


def config_fields(config: ExperimentConfig) -> list[ConfigField]:
    """Returns every field of a config, with those of its components."""
    return list(_fields(config, ""))


def config_table(config: ExperimentConfig) -> Table:
    """Returns a table of every field, with an empty line between the sections."""
    table = Table(title=f"Config of {config.experiment}; --set FIELD=VALUE changes a field",
                  title_justify="left", show_edge=False, box=None, pad_edge=False)
    table.add_column("field", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=18)
    table.add_column("meaning (values)", overflow="fold")
    before = ""
    for field in config_fields(config):
        section = field.name.partition(".")[0]
        if before and section != before:
            table.add_row()
        before = section
        table.add_row(Text(field.name), Text(field.value),
                      Text(f"{field.meaning} ({field.values})".strip()))
    return table


def _fields(node: Any, path: str) -> Iterator[ConfigField]:
    hints, meanings = typing.get_type_hints(type(node)), field_meanings(type(node))
    for field in dataclasses.fields(node):
        value, hint = getattr(node, field.name), hints[field.name]
        full, meaning = join(path, field.name), _sentence(meanings.get(field.name, ""))
        if is_component(hint):
            yield ConfigField(full, value.name, meaning, _names(hint))
            yield from _fields(value, full)
        elif is_component_list(hint):
            kind = typing.get_args(hint)[0]
            yield ConfigField(full, ",".join(entry.name for entry in value) or "none", meaning,
                              _names(kind).replace("one of", "any of", 1))
            for entry in value:
                yield from _fields(entry, join(full, entry.name))
        elif dataclasses.is_dataclass(value):
            yield from _fields(value, full)
        else:
            bounds = describe_bounds(field)
            kind = _type(hint) if full != "data.dataset" else "one of " + ", ".join(DATASETS)
            yield ConfigField(
                full, _text(value), meaning, f"{kind}, {bounds}" if bounds else kind)


def _names(kind: type[Component]) -> str:
    names = ", ".join(sorted(kind.registered))
    return f"one of {names}" + (" or optax.*" if kind.kind == "optimizer" else "")


def _type(hint: Any) -> str:
    """Returns a description of a type, shorter than the description in error messages."""
    if typing.get_origin(hint) is tuple:
        names = {int: "integers", float: "numbers", str: "strings"}
        return f"{names.get(typing.get_args(hint)[0], 'true or false')} separated by commas"
    return describe(hint).removeprefix("a ").removeprefix("an ")


def _sentence(text: str) -> str:
    return (text[:1].upper() + text[1:]).removesuffix(".")


def _text(value: Any) -> str:
    """Formats a value as `--set` expects it."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value)) or "()"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
