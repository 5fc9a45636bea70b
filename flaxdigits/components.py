"""Components: the parts of an experiment that can be replaced by custom ones.

A component is a frozen dataclass with typed, bounded fields and at least one method. It belongs to
a kind (`Model`, `Optimizer`, `Schedule`, `Loss`, `Objective`, `Augmentation`, `Metric`), whose base
class documents the arguments and the results of the methods, and it is registered under a name::

    @register("lion")
    @dataclasses.dataclass(frozen=True)
    class Lion(Optimizer):
        beta1: float = bounded(0.9, at_least=0, below=1)
        ...

A registered component can be selected on the command line (`--set optimizer.name=lion`). Its fields
are checked for types and bounds, written to `config.json`, and restored from it. This module does
not import JAX, so that a config can be read and checked without it.
"""

import contextlib
import dataclasses
import difflib
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.field_types import is_supported

AnyComponent = TypeVar("AnyComponent", bound="type[Component]")

# Advice on the exceptions that JAX raises if traced code needs the value of an array. The keys are
# the names of the exceptions, because this module does not import JAX.
TRACING_ADVICE = {
    "UnexpectedTracerError":
        "an array is kept from one call to the next, for instance by functools.cache; keep a NumPy "
        "array instead",
    "TracerBoolConversionError":
        "`if`, `while`, `and` and `or` cannot depend on an array; use jnp.where",
    "TracerArrayConversionError": "NumPy cannot compute with a JAX array; use jax.numpy",
    "TracerIntegerConversionError": "an array cannot be an index of a list; use jnp.where or "
                                    "jnp.take",
    "NonConcreteBooleanIndexError": "a mask cannot be an index; use jnp.where",
    "ConcretizationTypeError": "float(), int() and shapes cannot depend on the values of an array; "
                               "use jnp.where in place of a condition",
}


def bounded(
    default: Any, at_least: float | None = None, above: float | None = None,
    at_most: float | None = None, below: float | None = None,
) -> Any:
    """Returns a dataclass field with bounds for its value, or for every element of a tuple."""
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    return dataclasses.field(default=default, metadata={"bounds": bounds})


def count(default: Any) -> Any:
    """Returns a dataclass field for a positive integer, such as a count or a size, below 2**31."""
    return bounded(default, at_least=1, below=2**31)


class Component:
    """Base class of every kind of component.

    A kind is declared by `class Optimizer(Component, kind="optimizer")`; its subclasses are the
    components of the kind.

    Attributes:
      kind: the name of the kind in messages, such as `optimizer`.
      name: the name under which the class is registered.
      registered: the components of the kind by name.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    registered: ClassVar[dict[str, type[Self]]]
    if typing.TYPE_CHECKING:  # every subclass is a dataclass
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls, kind: str | None = None, **options: Any) -> None:
        """Creates the registry of a new kind."""
        super().__init_subclass__(**options)
        if kind is not None:
            cls.kind, cls.registered = kind, {}

    @classmethod
    def find(cls, name: Any, path: str) -> "type[Self]":
        """Returns the component class of this kind that has a name: registered, or from `resolve`.

        Args:
          name: the name that was passed to `register`.
          path: the dotted name of the config field, for the error message.

        Raises:
          FlaxdigitsError: if there is none (the message lists the registered names), or as
            `resolve` does.
        """
        found = cls.registered.get(name) if isinstance(name, str) else None
        if found is None and isinstance(name, str):
            found = cls.resolve(name, path)
        if found is None:
            near = difflib.get_close_matches(str(name), cls.registered, n=3, cutoff=0.5)
            raise FlaxdigitsError(
                f"{path} must be one of {', '.join(sorted(cls.registered))}, got {name!r}"
                + (f"; did you mean {' or '.join(near)}?" if near else "")
                + f"; a custom {cls.kind} is registered by its experiment file: pass that file "
                "as experiment")
        return found

    @classmethod
    def resolve(cls, name: str, path: str) -> "type[Self] | None":
        """Creates the component class for a name that is not registered.

        By default there is none. `Optimizer`, for example, creates a class for `optax.adabelief`.
        The arguments are those of `find`.

        Returns:
          The class; None if the name has no such meaning.

        Raises:
          FlaxdigitsError: if the name has such a meaning, but the class cannot be created.
        """
        return None

    def check(self, path: str) -> None:
        """Raises FlaxdigitsError if the values of the fields are not compatible with each other.

        The type and bounds of each field are checked before this method is called.

        Args:
          path: the dotted name of the config field, for the error message.
        """


def article(word: str) -> str:
    """Returns the indefinite article for a word: `a` or `an`."""
    return "an" if word[0] in "aeiouAEIOU" else "a"


def register(name: str) -> Callable[[AnyComponent], AnyComponent]:
    """Returns a class decorator that makes a dataclass a component of its kind.

    Args:
      name: the name of the component in configs. If an experiment file is executed again, the new
        class replaces the old one; the name of a built-in component cannot be reused.

    Raises:
      FlaxdigitsError: from the decorator, if the class is not a frozen dataclass or is not of a
        kind; if a field has a reserved name, no default, or a type that `--set` cannot parse; or if
        the name of the component is invalid or belongs to a built-in component.
    """
    def decorator(cls: AnyComponent) -> AnyComponent:
        if not (isinstance(cls, type) and issubclass(cls, Component) and hasattr(cls, "kind")):
            raise FlaxdigitsError(
                f"register({name!r}): {getattr(cls, '__name__', cls)} must be a subclass of a kind "
                "of component, such as flaxdigits.optimizers.Optimizer")
        # A subclass that is not decorated itself inherits __dataclass_params__.
        params = cls.__dict__.get("__dataclass_params__")
        if params is None or not params.frozen:
            raise FlaxdigitsError(
                f"register({name!r}): decorate {cls.__name__} with "
                "@dataclasses.dataclass(frozen=True), below @register")
        for field in dataclasses.fields(cls):
            if field.name in ("kind", "name", "registered"):
                raise FlaxdigitsError(
                    f"register({name!r}): {cls.__name__} cannot have a field {field.name}: choose "
                    "another name for it")
            if field.default is field.default_factory is dataclasses.MISSING:
                raise FlaxdigitsError(
                    f"register({name!r}): the field {field.name} of {cls.__name__} needs a default")
        _check_field_types(cls, f"register({name!r})")
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or name.lower() == "none":
            raise FlaxdigitsError(
                f"register({name!r}): the name must consist of letters, digits and underscores, "
                "must not begin with a digit, and must not be 'none'")
        other = cls.registered.get(name)
        if other is not None and is_built_in(other) and not is_built_in(cls):
            raise FlaxdigitsError(
                f"register({name!r}): flaxdigits already has {article(cls.kind)} {cls.kind} of "
                "this name: choose another name")
        cls.name = name
        cls.registered[name] = cls
        return cls

    return decorator


def _check_field_types(cls: type, call: str) -> None:
    """Raises FlaxdigitsError if a field has a type that `--set` or JSON cannot represent.

    Args:
      cls: the dataclass.
      call: the call of `register`, for the error message.
    """
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise FlaxdigitsError(f"{call}: a type of {cls.__name__} is unknown: {error}") from error
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, Component):
            continue
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            _check_field_types(hint, call)
        elif not (is_supported(hint) or (typing.get_origin(hint) is tuple and isinstance(
                item := typing.get_args(hint)[0], type) and issubclass(item, Component))):
            raise FlaxdigitsError(
                f"{call}: the field {field.name} of {cls.__name__} has the type "
                f"{getattr(field.type, '__name__', field.type)}; use int, float, str, bool, "
                "Literal of strings, tuple[int, ...] (or of float, str, bool), one of these "
                "| None, a component, or tuple[<component>, ...]")


def is_built_in(cls: type) -> bool:
    """Returns whether a class is part of flaxdigits."""
    return cls.__module__.partition(".")[0] == "flaxdigits"


@contextlib.contextmanager
def reraise_with_component(component: Component, path: str) -> Iterator[None]:
    """Converts an exception in the code of a component into a FlaxdigitsError of one line.

    Args:
      component: the component whose code the block calls.
      path: the dotted name of the config field, for the error message.
    """
    try:
        yield
    except FlaxdigitsError:
        raise
    except Exception as error:
        file = getattr(sys.modules.get(type(component).__module__), "__file__", None)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == file]
        location = f" ({file}:{lines[-1]})" if lines else ""
        advice = next((TRACING_ADVICE[cls.__name__] for cls in type(error).__mro__
                       if cls.__name__ in TRACING_ADVICE), None)
        message = advice or (str(error).strip() or "no message").splitlines()[0]
        raise FlaxdigitsError(
            f"{path}: {component.name} raises {type(error).__name__}: {message}{location}"
        ) from error


def replace_component(old: Component, cls: type[Component]) -> Component:
    """Returns a component of class `cls` that keeps the values of the fields it shares with `old`.

    Fields are shared if they have the same name and type. If the value in `old` is the default of
    its class, and the new class has another default, the new default is used: selecting `adamw`
    instead of `adam` also sets the weight decay of `adamw`.
    """
    if type(old) is cls:
        return old
    before, after = defaults(type(old)), defaults(cls)
    old_types, new_types = typing.get_type_hints(type(old)), typing.get_type_hints(cls)
    shared = [name for name in after if name in before and old_types[name] == new_types[name]]
    kept = {name: getattr(old, name) for name in shared
            if before[name] == after[name] or getattr(old, name) != before[name]}
    return cls(**kept)


def defaults(cls: type[Component]) -> Mapping[str, Any]:
    """Returns the default of every field by name."""
    return {field.name: field.default if field.default_factory is dataclasses.MISSING
            else field.default_factory() for field in dataclasses.fields(cls)}
