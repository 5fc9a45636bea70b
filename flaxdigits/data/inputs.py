"""Augmentation and preprocessing of a training batch."""

import jax
import jax.numpy as jnp

from flaxdigits.config import DataConfig
from flaxdigits.data.preprocessing import preprocess


def training_inputs(
    images: jax.Array, positions: jax.Array, rng: jax.Array, config: DataConfig
) -> jax.Array:
    """Augments and preprocesses the images of a training batch.

    Args:
      images: [batch, height, width, channels] uint8.
      positions: [batch] int32, the position of each example in the global batch. The random values
        of an example depend only on its position and on `rng`.
      rng: the PRNG key of the augmentation for this step.
      config: the data config, with the augmentations and the preprocessing.

    Returns:
      [batch, height, width, channels] float32.
    """
    for number, augmentation in enumerate(config.augmentation):
        # The first augmentation uses the key of the step itself; each other one a derived key.
        key = jax.random.fold_in(rng, number) if number else rng
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)
        images = jax.vmap(augmentation.augment)(images.astype(jnp.float32), keys)
    return preprocess(images, config.preprocessing)
