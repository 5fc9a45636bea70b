"""Matrix products, by whichever form is fast on the device."""

import jax
import jax.numpy as jnp
from jax import lax

from flaxdigits.models import onednn

LARGE = 10**9  # multiply-adds


def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[batch, in] @ [in, out] -> [batch, out]; large ones of float32 in train steps by oneDNN."""
    if not (onednn.is_offered() and x.dtype == jnp.float32 and x.size * kernel.shape[1] > LARGE):
        return x @ kernel
    return lax.platform_dependent(x, kernel, cpu=onednn.multiply, default=jnp.matmul)
