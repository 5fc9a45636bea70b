"""Random affine changes of images, on the device, as Keras's ImageDataGenerator makes them."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from flaxdigits.config import Augmentation


def augment(
    images: jax.Array, places: jax.Array, rng: jax.Array, config: Augmentation
) -> jax.Array:
    """Rotates, shifts and zooms every image by its own draw; bilinear, nearest beyond the border.

    Args:
      images: [batch, height, width, 1], values 0 to 255, any dtype.
      places: [batch] int32, each example's place in the global batch: its draw depends on this
        and `rng` alone.
      rng: the step's key.
      config: the largest changes.

    Returns:
      [batch, height, width, 1] float32, values 0 to 255.
    """
    def one(image: jax.Array, place: jax.Array) -> jax.Array:
        draws = jax.random.uniform(jax.random.fold_in(rng, place), (5,), minval=-1.0)
        return _affine(image[..., 0].astype(jnp.float32), draws, config)[..., None]

    return jax.vmap(one)(images, places)


def _affine(image: jax.Array, draws: jax.Array, config: Augmentation) -> jax.Array:
    """The image [height, width] under one draw of five numbers between -1 and 1."""
    angle = jnp.deg2rad(config.rotation) * draws[0]
    zoom = 1 + config.zoom * draws[1:3]
    size = jnp.array(image.shape, jnp.float32)
    shift = config.shift * size * draws[3:5]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.array([[cosine, -sine], [sine, cosine]])
    centre = (size - 1) / 2
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, image.shape), indexing="ij"))
    # Output to input, in Keras's order: zoom first, then shift, then rotation about the centre.
    offsets = (grid - centre[:, None, None]) * zoom[:, None, None] + shift[:, None, None]
    # At full precision: a GPU's or TPU's default would move pixels by hundredths.
    turned = jnp.einsum("ij,jhw->ihw", rotation, offsets, precision=jax.lax.Precision.HIGHEST)
    source = turned + centre[:, None, None]
    return map_coordinates(image, list(source), order=1, mode="nearest")
