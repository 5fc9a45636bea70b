"""Preprocessing of uint8 images to network inputs, on the device."""

import jax
import jax.numpy as jnp


def preprocess(images: jax.Array, name: str) -> jax.Array:
    """Returns the images after the named preprocessing.

    Args:
      images: [batch, height, width, channels], values 0 to 255, any dtype.
      name: `unit` divides by 255. `column_norm` divides every column of an image by its L2 norm, as
        `keras.utils.normalize(images, axis=1)` does; columns of zeros are not changed. `raw` does
        not change the values.

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
