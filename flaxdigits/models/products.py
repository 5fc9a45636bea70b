"""Matrix products, by the implementation that is fastest on the device."""

import jax
import jax.numpy as jnp
from jax import lax

from flaxdigits.models import onednn

LARGE = 10**9  # multiply-adds


def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the product of a batch with a matrix.

    On CPUs bfloat16 operands are multiplied in float32 and the product is rounded. Large products
    in train steps are computed by oneDNN.

    Args:
      x: [batch, in] float32 or bfloat16.
      kernel: [in, out], of the same dtype.

    Returns:
      [batch, out], of the same dtype.
    """
    is_large = onednn.may_use_onednn() and x.size * kernel.shape[1] > LARGE
    if x.dtype == jnp.float32 and not is_large:
        return x @ kernel
    product = onednn.multiply if is_large else jnp.matmul

    def multiply_on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return product(x.astype(jnp.float32), kernel.astype(jnp.float32)).astype(x.dtype)

    return lax.platform_dependent(x, kernel, cpu=multiply_on_cpu, default=jnp.matmul)
