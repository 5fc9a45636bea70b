"""`--set data.fold=3`: single fields of a config, changed by name, checked by type and range.

A component is chosen by its name (`optimizer.name=lion`, or shorter `optimizer=lion`), and keeps
the fields that it has in common with the one before it. A list of components is set by their names
(`data.augmentation=affine,cutout`), and an entry's field through the entry's name
(`data.augmentation.affine.rotation=10`, which adds the entry if it is missing).
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
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.field_types import alternatives, check, describe


def apply_overrides(config: ExperimentConfig, assignments: Iterable[str]) -> ExperimentConfig:
    """Returns the config with every `name=value` applied, and validated.

    Components are chosen first, so that the order of the assignments does not matter, and then
    their fields are set; of two assignments to one field the later one counts.

    Args:
      config: the config to change.
      assignments: like `train.epochs=5`, `model.filters=16,32,64`, `train.ema_decay=none`.

    Raises:
      FlaxdigitsError: naming an unknown field and its near matches, or an invalid type or value.
    """
    given = config
    parsed = [_parse_assignment(assignment) for assignment in assignments]
    for parts, text in sorted(parsed, key=lambda item: _order(config, item[0])):
        config = _Override(text, config).apply(config, type(config), None, parts, "")
    if not given.data.augmentation and config.data.augmentation == (Affine(),) and all(
            parts[:2] != ["data", "augmentation"] or parts[2:] for parts, _ in parsed):
        # `data.augmentation.rotation=0`, as earlier versions took it, asks for no augmentation.
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, augmentation=()))
    return validate(config)


def _parse_assignment(assignment: Any) -> tuple[list[str], str]:
    if not isinstance(assignment, str):
        raise FlaxdigitsError(f"fields are changed by 'name=value', got {assignment!r}")
    name, equals, text = assignment.partition("=")
    if not equals:
        raise FlaxdigitsError(f"--set takes name=value, got {assignment!r}")
    name = name.strip()
    return RENAMED.get(name, name).split("."), text.strip()


def _order(config: Any, parts: list[str]) -> int:
    """Returns the sort key of an assignment: the depth of the component it selects, else 1000."""
    value, hint = config, type(config)
    for part in parts:
        if part == "name" and isinstance(value, Component):
            return len(parts) - 1
        if not dataclasses.is_dataclass(value) or not hasattr(value, part):
            return 1000
        hint, value = typing.get_type_hints(type(value)).get(part), getattr(value, part)
    return len(parts) if is_component(hint) or is_component_list(hint) else 1000


def field_names(config: Any) -> list[str]:
    """Returns the dotted names of all fields that can be set."""
    return list(_names(config, ""))


def _names(node: Any, path: str) -> Iterator[str]:
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


@dataclasses.dataclass(frozen=True)
class _Override:
    """One assignment: the text of the value, and the config that it changes."""

    text: str
    config: ExperimentConfig

    def apply(
        self, value: Any, hint: Any, field: dataclasses.Field | None, parts: list[str], path: str
    ) -> Any:
        """Returns `value`, the node at `path`, with the field at relative path `parts` replaced."""
        if is_component_list(hint):
            return self._entries(value, typing.get_args(hint)[0], parts, path)
        if is_component(hint) and parts in ([], ["name"]):
            return replace_component(value, hint.find(self.text, f"{path}.name"))
        if dataclasses.is_dataclass(value):
            return self._in_section(value, parts, path)
        if parts:
            raise FlaxdigitsError(self._unknown(".".join([path, *parts])))
        return check(_parse(self.text, hint, path), hint, field, path)

    def _in_section(self, node: Any, parts: list[str], path: str) -> Any:
        if not parts:
            inside = [name for name in field_names(self.config) if name.startswith(f"{path}.")]
            raise FlaxdigitsError(f"{path} is a group of fields; set one of {', '.join(inside)}")
        (name, *rest), fields = parts, {field.name: field for field in dataclasses.fields(node)}
        if name not in fields:
            full = ".".join(filter(None, [path, *parts]))
            if isinstance(node, Component):
                near = difflib.get_close_matches(name, fields, n=1)
                raise FlaxdigitsError(
                    f"{full}: the {node.kind} {node.name} has no such field; "
                    + (f"did you mean {near[0]}? " if near else "")
                    + f"it has {', '.join(fields) or 'none'}")
            raise FlaxdigitsError(self._unknown(full))
        hint = typing.get_type_hints(type(node))[name]
        new = self.apply(getattr(node, name), hint, fields[name], rest, join(path, name))
        return dataclasses.replace(node, **{name: new})

    def _entries(
        self, entries: tuple[Component, ...], kind: type[Component], parts: list[str], path: str
    ) -> tuple[Component, ...]:
        if not parts:
            names = [] if self.text.lower() in ("none", "") else self.text.split(",")
            before = {entry.name: entry for entry in entries}
            return tuple(before.get(name) or kind.find(name, path)()
                         for name in map(str.strip, names))
        name, *rest = parts
        places = [place for place, entry in enumerate(entries)
                  if name in (entry.name, str(place))]
        if name.isdecimal() and not places:
            raise FlaxdigitsError(f"{path}.{name}: there are {len(entries)} of them, from 0")
        if len(places) > 1:
            raise FlaxdigitsError(
                f"{path}.{name}: there are several; number them from 0, as in {path}.{places[0]}")
        if not places:
            places, entries = [len(entries)], (*entries, kind.find(name, path)())
        if not rest:
            fields = [field.name for field in dataclasses.fields(entries[places[0]])]
            raise FlaxdigitsError(
                f"{path}.{name} is {article(kind.kind)} {kind.kind}: set one of its fields "
                f"({', '.join(fields) or 'it has none'}), or the list, as in {path}={name}")
        new = self._in_section(entries[places[0]], rest, join(path, name))
        return (*entries[:places[0]], new, *entries[places[0] + 1:])

    def _unknown(self, name: str) -> str:
        known = field_names(self.config)
        matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        leaf = name.rpartition(".")[2]
        matches += [other for other in known if other.rpartition(".")[2] == leaf]
        unique = list(dict.fromkeys(matches))
        hint = f"did you mean {' or '.join(unique)}?" if unique else "--mode=config lists them all"
        return f"unknown field {name}; {hint}"


def _parse(text: str, hint: Any, name: str) -> Any:
    """The text as the first of the hint's types that can read it."""
    for option in alternatives(hint):
        try:
            return _parse_as(text, option)
        except ValueError:
            continue
    raise FlaxdigitsError(f"{name} must be {describe(hint)}, got {text!r}")


def _parse_as(text: str, hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        return text
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        items = text.strip("()[] ").removesuffix(",")  # as Python writes a tuple of one
        return tuple(_parse_as(item, element) for item in items.split(",")) if items else ()
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if hint is type(None):
        if text.lower() != "none":
            raise ValueError(text)
        return None
    if hint is str and text.lower() == "none":
        raise ValueError(text)
    return hint(text)
