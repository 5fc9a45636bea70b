"""Per-example losses; the train step takes their mean over the global batch."""

from __future__ import annotations

import dataclasses

from etils import epy

from flaxdigits.components import Component, bounded, register
from flaxdigits.errors import FlaxdigitsError

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp
    import optax


@dataclasses.dataclass(frozen=True)
class Loss(Component, kind="loss"):
    """Base class of the losses."""

    def losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """Returns the loss of every example.

        Args:
          logits: [batch, classes] float32.
          targets: [batch, classes] float32; each row is a distribution over the classes: one-hot,
            or soft if an objective mixes examples.

        Returns:
          [batch] float32.
        """
        raise NotImplementedError

    def check_classes(self, num_classes: int, path: str) -> None:
        """Raises FlaxdigitsError if the loss cannot be used with this number of classes.

        Args:
          num_classes: the number of classes of the data set.
          path: the dotted name of the loss in the config, for the error message.
        """


@register("cross_entropy")
@dataclasses.dataclass(frozen=True)
class CrossEntropy(Loss):
    """Softmax cross-entropy.

    Attributes:
      label_smoothing: the fraction of each target that is distributed evenly over all classes
        (Szegedy et al. 2016).
      class_weights: a factor of the loss for each class; empty for no factors. The mean over the
        batch is divided by the number of examples, as in Keras, and not by the sum of the weights,
        as in PyTorch.
    """

    label_smoothing: float = bounded(0.0, at_least=0, below=1)
    class_weights: tuple[float, ...] = bounded((), at_least=0)

    def losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        losses = optax.softmax_cross_entropy(
            logits, optax.smooth_labels(targets, self.label_smoothing))
        return losses * (targets @ jnp.array(self.class_weights)) if self.class_weights else losses

    def check_classes(self, num_classes: int, path: str) -> None:
        if len(self.class_weights) not in (0, num_classes):
            raise FlaxdigitsError(
                f"{path}.class_weights must be empty or have {num_classes} numbers, one for each "
                f"class, got {len(self.class_weights)}")
        if self.class_weights and not any(self.class_weights):
            raise FlaxdigitsError(
                f"{path}.class_weights must not all be 0: the loss would always be 0")


@register("mse")
@dataclasses.dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Mean squared error between the softmax and the target, averaged over the classes as in Keras.
    """

    def losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.square(jax.nn.softmax(logits) - targets).mean(-1)


@register("focal")
@dataclasses.dataclass(frozen=True)
class Focal(Loss):
    """Cross-entropy that down-weights well-classified examples (Lin et al. 2017).

    Attributes:
      gamma: the exponent of the factor 1 - p; with 0 the loss is cross-entropy.
    """

    gamma: float = bounded(2.0, at_least=0)

    def losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        log_p = jax.nn.log_softmax(logits)
        # Computed from log p, since 1 - p would lose precision where p is near 1.
        one_minus_p = jnp.clip(-jnp.expm1(log_p), 1e-7, 1.0)
        return -(targets * one_minus_p ** self.gamma * log_p).sum(-1)
