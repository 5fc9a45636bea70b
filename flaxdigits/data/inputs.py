"""Augmentation and preprocessing of a training batch."""

import jax
import jax.numpy as jnp

from flaxdigits.config import DataConfig
from flaxdigits.data.preprocessing import preprocess


def training_inputs(
    images: jax.Array, positions: jax.Array, rng: jax.Array, config: DataConfig
) -> jax.Array:
    """Returns the images of a batch, each augmented by its own random values, and preprocessed.

    Args:
      images: [batch, height, width, channels] uint8.
      positions: [batch] int32, each example's position in the global batch; its random
        values depend only on this and on `rng`.
      rng: the augmentation key of the step.
      config: which augmentations and preprocessing.

    Returns:
      [batch, height, width, channels] float32.
    """
    for number, augmentation in enumerate(config.augmentation):
        # The first augmentation uses the step's key itself, each other one its own key.
        key = jax.random.fold_in(rng, number) if number else rng
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)
        images = jax.vmap(augmentation.augment)(images.astype(jnp.float32), keys)
    return preprocess(images, config.preprocessing)
