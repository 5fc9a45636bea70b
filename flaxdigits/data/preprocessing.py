"""Preprocessing: from uint8 images to the inputs of the network, on the device."""

import jax
import jax.numpy as jnp


def preprocess(images: jax.Array, name: str) -> jax.Array:
    """Returns the images after the named preprocessing.

    Args:
      images: [batch, height, width, channels], values 0 to 255, any dtype.
      name: `unit`: divided by 255. `column_norm`: every image column divided by its L2 norm, as
        `keras.utils.normalize(images, axis=1)` does; a column of zeros stays. `raw`: unchanged.

    Returns:
      [batch, height, width, channels] float32.
    """
    images = images.astype(jnp.float32)
    if name == "unit":
        return images / 255
    if name == "column_norm":
        norms = jnp.sqrt(jnp.square(images).sum(axis=1, keepdims=True))
        return images / jnp.where(norms == 0, 1, norms)
    return images
