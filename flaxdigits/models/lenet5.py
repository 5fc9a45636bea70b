"""LeNet-5: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE 86(11), figure 2."""

import flax.linen as nn
import jax

from flaxdigits.models.layers import AvgPool, Conv, Dense, Flatten, Training


class LeNet5(nn.Module):
    """Images, [batch, height, width, channels] float32, to logits, [batch, num_classes] float32.

    It has 61,706 parameters for images of 28x28x1 and 10 classes. It differs from the paper in the
    same points as most implementations: the first convolution pads the image, whose size is 32x32
    in the paper; every feature map of the second convolution is connected to all maps of the first;
    pooling is a mean without parameters; and the output layer is a dense layer instead of radial
    basis functions.

    Attributes:
      num_classes: the number of logits.
      activation: `tanh` or `relu`.
    """

    num_classes: int
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None = None) -> jax.Array:
        activate = {"tanh": nn.tanh, "relu": nn.relu}[self.activation]
        x = AvgPool()(activate(Conv(6, (5, 5), padding="SAME")(x)))
        x = AvgPool()(activate(Conv(16, (5, 5))(x)))
        x = Flatten()(x)
        for features in (120, 84):
            x = activate(Dense(features)(x))
        return Dense(self.num_classes)(x)
