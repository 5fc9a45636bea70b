"""Pins the JAX settings that affect results, so that all runs use the same values.

JAX reads its settings from environment variables such as `JAX_ENABLE_X64`, and a program can change
them. With another random number generator a resumed run would have another result, and strict modes
such as `JAX_NUMPY_RANK_PROMOTION=raise` reject operations that Flax and Optax use.
"""

import contextlib
import logging
from collections.abc import Iterator

import jax

PINNED = {
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_random_seed_offset": 0,
    "jax_threefry_partitionable": True,
    "jax_transfer_guard": None,
    "jax_transfer_guard_device_to_device": None,
    "jax_transfer_guard_device_to_host": None,
    "jax_transfer_guard_host_to_device": None,
}

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def pinned_settings() -> Iterator[None]:
    """Applies the settings in `PINNED`, and restores the previous values at the end.

    Logs a warning that names the settings whose values differed. It can be used as a context
    manager or as a decorator.
    """
    current = {name: getattr(jax.config, name) for name in PINNED if hasattr(jax.config, name)}
    changed = {name: value for name, value in current.items() if value != PINNED[name]}
    if changed:
        names = ", ".join(f"{name.upper()}={value}" for name, value in changed.items())
        _log.warning("JAX settings ignored, since results must not depend on them: %s", names)
    for name in changed:
        jax.config.update(name, PINNED[name])
    try:
        yield
    finally:
        for name, value in changed.items():
            jax.config.update(name, value)
