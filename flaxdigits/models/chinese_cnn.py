"""The network of tf2-chinese-mnist: three blocks of convolution and pooling, four dense layers."""

import flax.linen as nn
import jax

from flaxdigits.models.architecture import Architecture
from flaxdigits.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Training


class ChineseCnn(Architecture):
    """Numerals: [batch, height, width, channels] float32 -> logits, [batch, num_classes] float32.

    Published with filters 32, 64, 128 and dense 1024, 512, 256: 9,142,287 parameters, and without
    dropout; `dropout` here follows the hidden dense layers.
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
        for place, features in enumerate(self.dense):
            x = nn.relu(Dense(features)(x))
            if self.dropout:
                x = Dropout(self.dropout[place])(x, training)
        return Dense(self.num_classes)(x)
