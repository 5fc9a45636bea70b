"""What every architecture here has in common: its fields."""

from typing import ClassVar

import flax.linen as nn


class Architecture(nn.Module):
    """A network from images to logits, called with `(images, training=None)`.

    Attributes:
      num_classes: how many logits.
      filters: features of each convolution, in order.
      dense: units of each hidden dense layer, in order.
      dropout: the rate at each of the architecture's places for dropout, or empty for none.
      batch_norm: whether a batch normalisation stands between each convolution and its ReLU.
    """

    convolutions: ClassVar[int | None] = None  # how many `filters` it takes; None: any number

    num_classes: int
    filters: tuple[int, ...]
    dense: tuple[int, ...] = ()
    dropout: tuple[float, ...] = ()
    batch_norm: bool = False

    def dropout_places(self) -> int:
        """How many rates `dropout` has when it is not empty."""
        return 1
