"""A multilayer perceptron: hidden dense layers with ReLU and dropout (Srivastava et al. 2014)."""

import flax.linen as nn
import jax

from flaxdigits.models.layers import Dense, Dropout, Flatten, Training


class Mlp(nn.Module):
    """Images, [batch, height, width, channels] float32, to logits, [batch, num_classes] float32.

    Attributes:
      num_classes: the number of logits.
      dense: the number of units of each hidden layer.
      dropout: the dropout rate after each hidden layer.
    """

    num_classes: int
    dense: tuple[int, ...] = (512, 512)
    dropout: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None = None) -> jax.Array:
        x = Flatten()(x)
        for features in self.dense:
            x = nn.relu(Dense(features)(x))
            x = Dropout(self.dropout)(x, training)
        return Dense(self.num_classes)(x)
