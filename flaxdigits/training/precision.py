"""Sets the precision of convolutions and matrix products: `train.precision`.

On a CPU `tf32` is the same as `fp32`, and `bf16` rounds operands and outputs to bfloat16 and
computes the products in float32 (`models/convolution.py`, `models/products.py`). Parameters,
gradients of parameters, updates and losses are always float32.
"""

import contextlib
import logging
from typing import Any

import jax
import jax.numpy as jnp

_log = logging.getLogger(__name__)

# The names of these precisions in JAX. For float32 operands, "default" would be TF32 on a GPU and
# one pass of bfloat16 on a TPU.
JAX_PRECISIONS = {"fp32": "highest", "tf32": "high", "bf16": "default"}

CPU_WARNINGS = {
    "tf32": "train.precision=tf32 is the same as fp32 on a CPU",
    "bf16": "train.precision=bf16 on a CPU rounds to bfloat16 and multiplies in float32: its "
            "results are rounded as on a GPU, and it is not faster than fp32",
}


def warn_about_precision_on_cpu(precision: str) -> None:
    """Logs a warning if the precision differs from fp32 and the device is a CPU."""
    if precision in CPU_WARNINGS and jax.default_backend() == "cpu":
        _log.warning(CPU_WARNINGS[precision])


def matmul_precision(precision: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which convolutions and matrix products are traced with a precision.

    Args:
      precision: `fp32`, `tf32` or `bf16`.
    """
    return jax.default_matmul_precision(JAX_PRECISIONS[precision])


def cast(tree: Any, precision: str) -> Any:
    """Returns a pytree of float32 arrays in bfloat16 for `bf16`, else unchanged."""
    if precision != "bf16":
        return tree
    return jax.tree.map(lambda array: array.astype(jnp.bfloat16), tree)
