"""Overrides such as `--set data.fold=3`, which set single fields of a config by name.

A component is selected by its name (`optimizer.name=lion`, or `optimizer=lion` for short). It takes
over the values of the fields that it shares with the component that it replaces. A list of
components is set by their names (`data.augmentation=affine,cutout`), and a field of an entry by the
name of the entry (`data.augmentation.affine.rotation=10`, which adds the entry if it is missing).
"""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from flaxdigits.augmentations import Affine
from flaxdigits.components import Component, article, replace_component
from flaxdigits.config import (
    RENAMED,
    ExperimentConfig,
    is_component,
    is_component_list,
    join,
    validate,
)
from flaxdigits.errors import FlaxdigitsError, quoted
from flaxdigits.field_types import alternatives, check, describe


def apply_overrides(config: ExperimentConfig, assignments: Iterable[str]) -> ExperimentConfig:
    """Applies every `name=value` assignment and validates the config.

    Components are selected before their fields are set, so the order of the assignments does not
    matter. If a field is assigned twice, the last assignment wins.

    Args:
      config: the config to change.
      assignments: assignments such as `train.epochs=5`, `model.filters=16,32,64` or
        `train.ema_decay=none`.

    Raises:
      FlaxdigitsError: if a field is unknown (the message suggests similar names), or its value has
        an invalid type or is out of range.
    """
    original = config
    parsed = [_parse_assignment(assignment) for assignment in assignments]
    for names, text in sorted(parsed, key=lambda item: _order(config, item[0])):
        config = _Assignment(text, config).apply(config, type(config), None, names, "")
    if not original.data.augmentation and config.data.augmentation == (Affine(),) and all(
            names[:2] != ["data", "augmentation"] or names[2:] for names, _ in parsed):
        # In earlier versions `data.augmentation.rotation=0` meant no augmentation.
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, augmentation=()))
    return validate(config)


def _parse_assignment(assignment: Any) -> tuple[list[str], str]:
    """Splits `a.b=value` into `(["a", "b"], "value")`, with the current name for an old one.

    Raises:
      FlaxdigitsError: if the assignment is not a string or contains no equals sign.
    """
    if not isinstance(assignment, str):
        raise FlaxdigitsError(f"an override must be a string 'name=value', got {assignment!r}")
    name, equals, text = assignment.partition("=")
    if not equals:
        raise FlaxdigitsError(f"an override must be name=value, got {assignment!r}")
    name = name.strip()
    return RENAMED.get(name, name).split("."), text.strip()


def _order(config: Any, names: list[str]) -> int:
    """Returns the sort key of an assignment: the depth of the component that it selects, else 1000.
    """
    value, hint = config, type(config)
    for name in names:
        if name == "name" and isinstance(value, Component):
            return len(names) - 1
        if not dataclasses.is_dataclass(value) or not hasattr(value, name):
            return 1000
        hint, value = typing.get_type_hints(type(value)).get(name), getattr(value, name)
    return len(names) if is_component(hint) or is_component_list(hint) else 1000


def field_names(config: Any) -> list[str]:
    """Returns the dotted names of all fields."""
    return list(_names(config, ""))


def _names(node: Any, path: str) -> Iterator[str]:
    """Yields the dotted names of the fields of a section or component."""
    if isinstance(node, Component):
        yield join(path, "name")
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value, full = getattr(node, field.name), join(path, field.name)
        if dataclasses.is_dataclass(value):
            yield from _names(value, full)
            continue
        yield full
        if is_component_list(hints[field.name]):
            for entry in value:
                yield from _names(entry, join(full, entry.name))


def names_ending_in(name: str) -> list[str]:
    """Returns the fields, of any registered component, whose dotted name ends in `name`.

    Args:
      name: the end of a dotted name, such as `epochs` or `train.epochs`; a name of an earlier
        version is also accepted.
    """
    known = [*_possible_names(ExperimentConfig, ""), *RENAMED]
    found = [other for other in known if f".{other}".endswith(f".{name}")]
    return list(dict.fromkeys(RENAMED.get(other, other) for other in found))


def _possible_names(cls: type, path: str) -> Iterator[str]:
    """Yields the dotted names of the fields of a dataclass and of every component it may contain.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, full = hints[field.name], join(path, field.name)
        if not dataclasses.is_dataclass(hint) or is_component(hint):
            yield full
        if is_component_list(hint):
            for name, entry in typing.get_args(hint)[0].registered.items():
                yield from _possible_names(entry, join(full, name))
        elif is_component(hint):
            for component in hint.registered.values():
                yield from _possible_names(component, full)
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _possible_names(hint, full)


@dataclasses.dataclass(frozen=True)
class _Assignment:
    """The value of one `--set` assignment, as text, and the config that it changes."""

    text: str
    config: ExperimentConfig

    def apply(
        self, value: Any, hint: Any, field: dataclasses.Field | None, names: list[str], path: str
    ) -> Any:
        """Returns `value`, the node at `path`, with the field at the relative path `names` set.

        Args:
          value: a section, a component, a list of components or the value of a field.
          hint: the type of the node.
          field: the dataclass field of the node; None for the config.
          names: the names that lead from the node to the field.
          path: the dotted name of the node.
        """
        if is_component_list(hint):
            return self._replace_entries(value, typing.get_args(hint)[0], names, path)
        if is_component(hint) and names in ([], ["name"]):
            return replace_component(value, hint.find(self.text, f"{path}.name"))
        if dataclasses.is_dataclass(value):
            return self._replace_field(value, names, path)
        if names:
            raise FlaxdigitsError(self._unknown_field_message(".".join([path, *names])))
        assert field is not None  # only the config, which is a dataclass, is not a field
        return check(_parse(self.text, hint, path), hint, field, path)

    def _replace_field(self, node: Any, names: list[str], path: str) -> Any:
        """Returns a section or component with the field at the relative path `names` set."""
        if not names:
            fields = [name for name in field_names(self.config) if name.startswith(f"{path}.")]
            raise FlaxdigitsError(f"{path} is a group of fields; set one of {', '.join(fields)}")
        (name, *rest), fields = names, {field.name: field for field in dataclasses.fields(node)}
        if name not in fields:
            full = ".".join(filter(None, [path, *names]))
            if isinstance(node, Component):
                near = difflib.get_close_matches(name, fields, n=1)
                raise FlaxdigitsError(
                    f"{full}: the {node.kind} {node.name} has no such field; "
                    + (f"did you mean {near[0]}? Its fields are " if near else "it has ")
                    + (", ".join(fields) or "none"))
            raise FlaxdigitsError(self._unknown_field_message(full))
        hint = typing.get_type_hints(type(node))[name]
        new = self.apply(getattr(node, name), hint, fields[name], rest, join(path, name))
        return dataclasses.replace(node, **{name: new})

    def _replace_entries(
        self, entries: tuple[Component, ...], kind: type[Component], names: list[str], path: str
    ) -> tuple[Component, ...]:
        """Returns a list of components with a new list (no `names`) or a new field of one entry."""
        if not names:
            selected = [] if self.text.lower() in ("none", "") else self.text.split(",")
            current = {entry.name: entry for entry in entries}
            return tuple(current.get(name) or kind.find(name, path)()
                         for name in map(str.strip, selected))
        name, *rest = names
        positions = [position for position, entry in enumerate(entries)
                     if name in (entry.name, str(position))]
        if name.isdecimal() and not positions:
            raise FlaxdigitsError(
                f"{path} has no entry {name}: the list has {len(entries)} entries, "
                "numbered from 0")
        if len(positions) > 1:
            raise FlaxdigitsError(f"{path}.{name}: the list has several entries with this name; "
                                  f"use the index of an entry, as in {path}.{positions[0]}")
        if not positions:
            positions, entries = [len(entries)], (*entries, kind.find(name, path)())
        position = positions[0]
        if not rest:
            fields = [field.name for field in dataclasses.fields(entries[position])]
            raise FlaxdigitsError(
                f"{path}.{name} is {article(kind.kind)} {kind.kind}: set one of its fields "
                f"({', '.join(fields) or 'it has none'}), or select it with {path}={name}")
        new = self._replace_field(entries[position], rest, join(path, name))
        return (*entries[:position], new, *entries[position + 1:])

    def _unknown_field_message(self, name: str) -> str:
        """Returns the message for an unknown field, with the names of similar fields."""
        known = field_names(self.config)
        matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        leaf = name.rpartition(".")[2]
        matches += [other for other in known if other.rpartition(".")[2] == leaf]
        unique = list(dict.fromkeys(matches))
        hint = (f"did you mean {' or '.join(unique)}?" if unique
                else "the mode config lists all fields")
        return f"unknown field {name}; {hint}"


def _parse(text: str, hint: Any, path: str) -> Any:
    """Parses a text as the first member of a union type that accepts it."""
    for option in alternatives(hint):
        try:
            return _parse_as(text, option)
        except ValueError:
            continue
    raise FlaxdigitsError(f"{path} must be {describe(hint)}, got {quoted(text)}")


def _parse_as(text: str, hint: Any) -> Any:
    """Parses a text as a type that is not a union.

    Raises:
      ValueError: if the text is not a value of the type.
    """
    if typing.get_origin(hint) is Literal:
        if text not in typing.get_args(hint):
            raise ValueError(text)
        return text
    if typing.get_origin(hint) is tuple:
        return tuple(_parse_as(item, typing.get_args(hint)[0]) for item in _items(text))
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if hint is type(None):
        if text.lower() != "none":
            raise ValueError(text)
        return None
    if hint is str and text.lower() == "none":
        raise ValueError(text)
    return hint(text)


def _items(text: str) -> list[str]:
    """Splits a list such as `a,b`, or as Python prints lists: `(a, b)`, `["a", "b"]` or `(a,)`.

    Raises:
      ValueError: if a bracket or a quotation mark is not closed, or an item is empty.
    """
    text = text.strip()
    inside = text[1:-1].strip()
    opened, closed = inside.find(text[:1]), inside.find(text[-1:])
    if text[:1] + text[-1:] not in ("()", "[]") or (closed > -1 and not -1 < opened < closed):
        inside = text  # without brackets, or patterns such as `[CD]*,Conv_[01]`
    if not inside:
        return []
    # Python prints a tuple of one item as `(0.1,)`.
    items = [item.strip() for item in inside.removesuffix(",").split(",")]
    for position, item in enumerate(items):
        if item[:1] in "\"'" and item[:1] == item[-1:] and len(item) > 1:
            items[position] = item = item[1:-1]
        if not item or any(item.count(opened) != item.count(closed)
                           for opened, closed in ("()", "[]")) or set(item) & set("\"'"):
            raise ValueError(text)
    return items
