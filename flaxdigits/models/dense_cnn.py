"""Yasin Shafiei's network: one convolution, then dense layers."""

import flax.linen as nn
import jax

from flaxdigits.models.architecture import Architecture
from flaxdigits.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Training


class DenseCnn(Architecture):
    """Images, [batch, height, width, channels] float32, to logits, [batch, num_classes] float32.

    The published network has 32 filters, the dense units 256, 256 and dropout 0.1 after the last
    hidden layer: 1,674,570 parameters.
    """

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None = None) -> jax.Array:
        for features in self.filters:
            x = Conv(features, (3, 3), padding="SAME")(x)
            if self.batch_norm:
                x = BatchNorm()(x, training)
            x = nn.relu(x)
            x = MaxPool()(x)
        x = Flatten()(x)
        for features in self.dense:
            x = nn.relu(Dense(features)(x))
        if self.dropout:
            x = Dropout(self.dropout[0])(x, training)
        return Dense(self.num_classes)(x)
