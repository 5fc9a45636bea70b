"""Residual networks: He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition",
section 4.2 (the networks for CIFAR-10)."""

import math

import flax.linen as nn
import jax

from flaxdigits.models.layers import BatchNorm, Conv, Dense, MaxPool, Training

STAGES = 3
MOST_GROUPS = 8  # groups of group normalization; fewer if 8 does not divide the features


class ResNet(nn.Module):
    """Images, [batch, height, width, channels] float32, to logits, [batch, num_classes] float32.

    The network consists of a convolution, three stages of `depth` residual blocks each, the mean
    over the image and a dense layer: 6 `depth` + 2 layers. It differs from the paper in two points:
    the image is halved by 2x2 max pooling instead of a stride of 2, and the shortcut to more
    features is a 1x1 convolution (option B in the paper) instead of zero padding.

    Attributes:
      num_classes: the number of logits.
      depth: the number of residual blocks in each stage.
      width: the number of features of the first stage, which is doubled in each later stage.
      norm: the normalization, `batch` or `group`.
    """

    num_classes: int
    depth: int = 1
    width: int = 16
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None = None) -> jax.Array:
        x = Conv(self.width, (3, 3), padding="SAME")(x)
        x = nn.relu(Norm(self.norm)(x, training))
        for stage in range(STAGES):
            if stage:
                x = MaxPool()(x)
            for _ in range(self.depth):
                x = ResidualBlock(self.width * 2**stage, self.norm)(x, training)
        return Dense(self.num_classes)(x.mean((1, 2)))


class ResidualBlock(nn.Module):
    """Two convolutions, to whose output the input is added: [..., in] -> [..., features].

    Attributes:
      features: the number of features of the output. If the input has another number, the shortcut
        is a projection.
      norm: the normalization, `batch` or `group`.
    """

    features: int
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None) -> jax.Array:
        y = Conv(self.features, (3, 3), padding="SAME")(x)
        y = nn.relu(Norm(self.norm)(y, training))
        y = Conv(self.features, (3, 3), padding="SAME")(y)
        y = Norm(self.norm)(y, training)
        if x.shape[-1] != self.features:
            x = Norm(self.norm)(Conv(self.features, (1, 1))(x), training)
        return nn.relu(x + y)


class Norm(nn.Module):
    """Batch normalization or group normalization (Wu and He 2018); the shape is not changed.

    Attributes:
      kind: the normalization, `batch` or `group`.
    """

    kind: str

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None) -> jax.Array:
        if self.kind == "batch":
            return BatchNorm()(x, training)
        groups = math.gcd(MOST_GROUPS, x.shape[-1])
        return nn.GroupNorm(groups, epsilon=1e-5, dtype=x.dtype)(x)
