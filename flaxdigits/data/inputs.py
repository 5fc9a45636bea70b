"""From the images of a training batch to what the network is given."""

import jax

from flaxdigits.config import DataConfig
from flaxdigits.data.augmentation import augment
from flaxdigits.data.preprocessing import preprocess


def training_inputs(
    images: jax.Array, places: jax.Array, rng: jax.Array, config: DataConfig
) -> jax.Array:
    """The images augmented, if that is asked for, then preprocessed.

    Args:
      images: [batch, height, width, 1] uint8.
      places: [batch] int32, each example's place in the global batch.
      rng: the step's key of augmentation.
      config: which augmentation and preprocessing.

    Returns:
      [batch, height, width, 1] float32.
    """
    augmentation = config.augmentation
    if augmentation.rotation or augmentation.zoom or augmentation.shift:
        images = augment(images, places, rng, augmentation)
    return preprocess(images, config.preprocessing)
