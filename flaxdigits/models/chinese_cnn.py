"""The network of tf2-chinese-mnist: three blocks of convolution and pooling, four dense layers."""

import flax.linen as nn
import jax

from flaxdigits.models.architecture import Architecture
from flaxdigits.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Training


class ChineseCnn(Architecture):
    """Images, [batch, height, width, channels] float32, to logits, [batch, num_classes] float32.

    The published network has the filters 32, 64, 128 and the dense units 1024, 512, 256: 9,142,287
    parameters. It has no dropout; `dropout` adds it after the hidden dense layers.
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
        for layer, features in enumerate(self.dense):
            x = nn.relu(Dense(features)(x))
            if self.dropout:
                x = Dropout(self.dropout[layer])(x, training)
        return Dense(self.num_classes)(x)
