"""How exactly convolutions and matrix products are computed: `train.precision`.

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

# What JAX calls them. "default" would be TF32 on a GPU and one pass of bfloat16 on a TPU.
PRODUCTS = {"fp32": "highest", "tf32": "high", "bf16": "default"}


ON_CPU = {
    "tf32": "train.precision=tf32 is fp32 on a CPU",
    "bf16": "train.precision=bf16 on a CPU rounds to bfloat16 and multiplies in float32: its "
            "results are as coarse as on a GPU, and it is not faster than fp32",
}


def warn_of_precision_on_cpu(precision: str) -> None:
    """Logs in one line what a precision other than fp32 means on a CPU."""
    if precision in ON_CPU and jax.default_backend() == "cpu":
        _log.warning(ON_CPU[precision])


def matmul_precision(precision: str) -> contextlib.AbstractContextManager[None]:
    """Where a program is traced, lets its products be `fp32`, `tf32` or `bf16`."""
    return jax.default_matmul_precision(PRODUCTS[precision])


def cast(tree: Any, precision: str) -> Any:
    """The float32 arrays in bfloat16 for `bf16`, else as they are."""
    if precision != "bf16":
        return tree
    return jax.tree.map(lambda array: array.astype(jnp.bfloat16), tree)
