"""The precision of convolutions and matrix products: `train.precision`.

On a CPU `tf32` is `fp32`, and `bf16` rounds operands and outputs to bfloat16 and computes the
products in float32 (`models/convolution.py`, `models/products.py`). Parameters, gradients of
parameters, updates and losses are float32 in any case.
"""

import contextlib
import logging
from typing import Any

import jax
import jax.numpy as jnp

_log = logging.getLogger(__name__)

# The names that JAX has for them. "default" is TF32 on a GPU and one pass of bfloat16 on a TPU.
PRODUCTS = {"fp32": "highest", "tf32": "high", "bf16": "default"}


ON_CPU = {
    "tf32": "train.precision=tf32 is fp32 on a CPU",
    "bf16": "train.precision=bf16 on a CPU rounds to bfloat16 and multiplies in float32: its "
            "results are as inexact as on a GPU, and it is not faster than fp32",
}


def warn_of_precision_on_cpu(precision: str) -> None:
    """Logs a warning that a precision other than fp32 is not faster on a CPU."""
    if precision in ON_CPU and jax.default_backend() == "cpu":
        _log.warning(ON_CPU[precision])


def matmul_precision(precision: str) -> contextlib.AbstractContextManager[None]:
    """Sets the precision of the products in a program that is traced within the context."""
    return jax.default_matmul_precision(PRODUCTS[precision])


def cast(tree: Any, precision: str) -> Any:
    """Converts float32 arrays to bfloat16 for `bf16`; returns them unchanged otherwise."""
    if precision != "bf16":
        return tree
    return jax.tree.map(lambda array: array.astype(jnp.bfloat16), tree)
