"""The network of `mnist_cnn.py`: four unpadded convolutions and one hidden dense layer."""

import flax.linen as nn
import jax

from flaxdigits.models.architecture import Architecture
from flaxdigits.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Training


class MnistCnn(Architecture):
    """Images, [batch, height, width, channels] float32, to logits, [batch, num_classes] float32.

    The published network has the filters 32, 64, 128, 256 and 128 dense units: 1,003,658
    parameters. Dropout is applied after each pooling and after the hidden layer.
    """

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None = None) -> jax.Array:
        for block, size in enumerate((3, 2)):
            for features in self.filters[2 * block:2 * block + 2]:
                x = Conv(features, (size, size))(x)
                if self.batch_norm:
                    x = BatchNorm()(x, training)
                x = nn.relu(x)
            x = MaxPool()(x)
            if self.dropout:
                x = Dropout(self.dropout[block])(x, training)
        x = Flatten()(x)
        for position, features in enumerate(self.dense, start=2):
            x = nn.relu(Dense(features)(x))
            if self.dropout:
                x = Dropout(self.dropout[position])(x, training)
        return Dense(self.num_classes)(x)
