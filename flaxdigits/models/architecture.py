"""The base class of the five replicated networks, with their common fields."""

import flax.linen as nn


class Architecture(nn.Module):
    """Base class of networks from images to logits, called with `(images, training=None)`.

    Attributes:
      num_classes: the number of logits.
      filters: the number of features of each convolution.
      dense: the number of units of each hidden dense layer.
      dropout: the rate of each possible dropout layer; empty for no dropout.
      batch_norm: whether batch normalization is applied between each convolution and its ReLU.
    """

    num_classes: int
    filters: tuple[int, ...]
    dense: tuple[int, ...] = ()
    dropout: tuple[float, ...] = ()
    batch_norm: bool = False
