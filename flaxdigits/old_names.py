"""Accepts the names of fields of public dataclasses from earlier versions."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from flaxdigits.errors import FlaxdigitsError

Class = TypeVar("Class", bound=type)


def accept_old_names(**new_names: str) -> Callable[[Class], Class]:
    """Returns a class decorator: `cls(old=value)` is then the same as `cls(new=value)`.

    Args:
      **new_names: the current name of each field by its old name.

    Raises:
      FlaxdigitsError: from the constructor of the class, if a field is passed under both names.
    """
    def decorate(cls: Class) -> Class:
        init = cls.__init__

        @functools.wraps(init)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            for old, new in new_names.items():
                if old in kwargs and new in kwargs:
                    raise FlaxdigitsError(
                        f"{cls.__name__}: the field {old} is now called {new}: pass only {new}")
                if old in kwargs:
                    kwargs[new] = kwargs.pop(old)
            init(self, *args, **kwargs)

        cls.__init__ = __init__
        return cls

    return decorate
