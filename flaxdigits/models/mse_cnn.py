"""The network of "MNIST Digit Recognition with CNN": two small convolutions and no hidden layer."""

import flax.linen as nn
import jax

from flaxdigits.models.architecture import Architecture
from flaxdigits.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Training


class MseCnn(Architecture):
    """Images, [batch, height, width, channels] float32, to logits, [batch, num_classes] float32.

    The published network has the filters 32, 32 and dropout 0.3 after the last pooling: 17,802
    parameters (the sum in its document omits the biases of the last layer).
    """

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None = None) -> jax.Array:
        for features, size in zip(self.filters, (4, 3), strict=True):
            x = Conv(features, (size, size))(x)
            if self.batch_norm:
                x = BatchNorm()(x, training)
            x = nn.relu(x)
            x = MaxPool()(x)
        if self.dropout:
            x = Dropout(self.dropout[0])(x, training)
        x = Flatten()(x)
        for features in self.dense:
            x = nn.relu(Dense(features)(x))
        return Dense(self.num_classes)(x)
