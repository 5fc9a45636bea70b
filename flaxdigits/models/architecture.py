"""The fields that the five replicated networks share."""

import flax.linen as nn


class Architecture(nn.Module):
    """A network from images to logits, called with `(images, training=None)`.

    Attributes:
      num_classes: the number of logits.
      filters: the features of each convolution, in order.
      dense: the units of each hidden dense layer, in order.
      dropout: the rate at each place where dropout can be applied, or empty for none.
      batch_norm: whether batch normalisation stands between each convolution and its ReLU.
    """

    num_classes: int
    filters: tuple[int, ...]
    dense: tuple[int, ...] = ()
    dropout: tuple[float, ...] = ()
    batch_norm: bool = False
