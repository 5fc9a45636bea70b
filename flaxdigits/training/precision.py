"""How exactly convolutions and matrix products are computed: `train.precision`.

On a CPU products of float32 are exact float32 in any case, and bfloat16 is slow.
"""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp

# What JAX calls them. "default" would be TF32 on a GPU and one pass of bfloat16 on a TPU.
PRODUCTS = {"fp32": "highest", "tf32": "high", "bf16": "default"}


def products(precision: str) -> contextlib.AbstractContextManager[None]:
    """Where a program is traced, lets its products be `fp32`, `tf32` or `bf16`."""
    return jax.default_matmul_precision(PRODUCTS[precision])


def cast(tree: Any, precision: str) -> Any:
    """The float32 arrays in bfloat16 for `bf16`, else as they are."""
    if precision != "bf16":
        return tree
    return jax.tree.map(lambda array: array.astype(jnp.bfloat16), tree)
