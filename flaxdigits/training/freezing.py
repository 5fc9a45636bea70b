"""Splits parameters into those that are trained and those that `train.freeze` names.

A pattern matches the `/`-joined path of a module, a layer or a single array, such as `Conv_0`,
`Block_1/BatchNorm_0` or `Dense_1/bias`; `*` also matches slashes. All that lies below a match is
frozen. Objective and optimizer only see the other parameters.
"""

import fnmatch
from collections.abc import Sequence
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from flaxdigits.errors import FlaxdigitsError


def split_params(params: Any, freeze: Sequence[str]) -> tuple[Any, Any]:
    """Returns the trained and the frozen parameters, each as nested dictionaries.

    Args:
      params: the parameters of the model, or any tree of the same structure.
      freeze: the patterns; without any, all parameters are trained.
    """
    if not freeze:
        return params, {}
    arrays = flatten_dict(params)
    frozen = {path: array for path, array in arrays.items() if _matches(path, freeze)}
    trained = {path: array for path, array in arrays.items() if path not in frozen}
    return unflatten_dict(trained), unflatten_dict(frozen)


def merge_params(trained: Any, frozen: Any) -> Any:
    """Returns all parameters: the inverse of `split_params`."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen)) if frozen else trained


def check_freeze(params: Any, freeze: Sequence[str]) -> None:
    """Raises FlaxdigitsError if a pattern matches nothing, or nothing is left to train.

    Args:
      params: the parameters of the model, or their shapes.
      freeze: the patterns.
    """
    paths = list(flatten_dict(params))
    layers = ", ".join(sorted({"/".join(path[:-1] or path) for path in paths}))
    for pattern in freeze:
        if not any(_matches(path, (pattern,)) for path in paths):
            raise FlaxdigitsError(
                f"train.freeze: {pattern!r} matches no layer; the layers are {layers}")
    if freeze and all(_matches(path, freeze) for path in paths):
        raise FlaxdigitsError(
            f"train.freeze: {', '.join(freeze)} matches every layer and leaves nothing to train; "
            f"the layers are {layers}")


def _matches(path: Sequence[str], patterns: Sequence[str]) -> bool:
    prefixes = ["/".join(path[:length]) for length in range(1, len(path) + 1)]
    return any(fnmatch.fnmatchcase(prefix, pattern)
               for prefix in prefixes for pattern in patterns)
