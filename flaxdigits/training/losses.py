"""Losses of one example each; the train step takes their mean over the global batch."""

import jax
import jax.numpy as jnp
import optax

from flaxdigits.config import TrainConfig


def example_losses(logits: jax.Array, labels: jax.Array, config: TrainConfig) -> jax.Array:
    """The loss of every example.

    Args:
      logits: [batch, classes] float32.
      labels: [batch] int32.
      config: its `loss` and `label_smoothing` are used. `mse` is the mean over the classes of the
        squared difference between softmax and one-hot, as Keras computes it.

    Returns:
      [batch] float32.
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    if config.loss == "mse":
        return jnp.square(jax.nn.softmax(logits) - targets).mean(-1)
    return optax.softmax_cross_entropy(
        logits, optax.smooth_labels(targets, config.label_smoothing))
