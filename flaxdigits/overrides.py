"""`--set data.fold=3`: single fields of a config, changed by name, checked by type and range."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable
from typing import Any, Literal

from flaxdigits.config import ExperimentConfig, foreign_constants, join, validate
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.field_types import alternatives, check, describe


def apply_overrides(config: ExperimentConfig, assignments: Iterable[str]) -> ExperimentConfig:
    """The config with every `name=value` applied in order, and validated.

    Where they choose another optimizer, the constants of the former one that it lacks go back to
    their defaults, unless they are assigned too.

    Args:
      config: the experiment's own.
      assignments: like `train.epochs=5`, `model.filters=16,32,64`, `train.ema_decay=none`.

    Raises:
      FlaxdigitsError: naming an unknown field and its near matches, or a wrong type or range.
    """
    former, assigned = config.optimizer.name, set()
    for assignment in assignments:
        if not isinstance(assignment, str):
            raise FlaxdigitsError(f"fields are changed by 'name=value', got {assignment!r}")
        name, equals, text = assignment.partition("=")
        if not equals:
            raise FlaxdigitsError(f"--set takes name=value, got {assignment!r}")
        config = _replace(config, name.strip().split("."), text.strip(), "", field_names(config))
        assigned.add(name.strip())
    if config.optimizer.name != former:
        unset = {name: default for name, default in foreign_constants(config.optimizer).items()
                if f"optimizer.{name}" not in assigned}
        config = dataclasses.replace(
            config, optimizer=dataclasses.replace(config.optimizer, **unset))
    return validate(config)


def field_names(config: Any, path: str = "") -> list[str]:
    """The dotted names of all fields that hold a value."""
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        full = join(path, field.name)
        names += field_names(value, full) if dataclasses.is_dataclass(value) else [full]
    return names


def _replace(node: Any, parts: list[str], text: str, path: str, known: list[str]) -> Any:
    fields = {field.name: field for field in dataclasses.fields(node)}
    full = ".".join(filter(None, [path, *parts]))
    if parts[0] not in fields:
        raise FlaxdigitsError(f"unknown field {full}{_near(full, known)}")
    name, value = parts[0], getattr(node, parts[0])
    if dataclasses.is_dataclass(value):
        if len(parts) == 1:
            inside = [known_name for known_name in known if known_name.startswith(full + ".")]
            raise FlaxdigitsError(f"{full} is a group of fields; set one of {', '.join(inside)}")
        changed = _replace(value, parts[1:], text, join(path, name), known)
    elif len(parts) > 1:
        raise FlaxdigitsError(f"unknown field {full}{_near(full, known)}")
    else:
        hint = typing.get_type_hints(type(node))[name]
        changed = check(_parse(text, hint, full), hint, fields[name], full)
    return dataclasses.replace(node, **{name: changed})


def _near(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    leaf = name.rpartition(".")[2]
    matches += [other for other in known if other.rpartition(".")[2] == leaf]
    unique = list(dict.fromkeys(matches))
    return f"; did you mean {' or '.join(unique)}?" if unique else "; --mode=config lists them all"


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
