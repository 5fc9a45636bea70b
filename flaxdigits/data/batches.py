"""The order of the training examples: a pure function of the seed and the step."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """Divides an epoch into batches.

    A batch is padded to a multiple of the number of devices, and the last batch to the size of the
    others. A mask is False for the padding.

    Attributes:
      examples: the number of examples in an epoch.
      batch_size: the number of examples per step, over all devices.
      devices: the number of devices over which a batch is sharded.
    """

    examples: int
    batch_size: int
    devices: int

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch, which uses every example once."""
        return -(-self.examples // self.batch_size)

    @property
    def unpadded_batch_size(self) -> int:
        """The number of examples in the largest batch: `batch_size`, or `examples` if it is less.
        """
        return min(self.batch_size, self.examples)

    @property
    def padded_batch_size(self) -> int:
        """The number of rows of a batch including padding, a multiple of the number of devices."""
        return -(-self.unpadded_batch_size // self.devices) * self.devices

    def select(self, step: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Selects the examples of a step.

        Args:
          step: [] int32, counted from the start of training.
          positions: [n] int32, rows of the global batch.

        Returns:
          indices: [n] int32, indices into the order of the epoch (see `epoch_order`); 0 for
            padding.
          mask: [n] bool, False for padding.
        """
        indices = step % self.steps_per_epoch * self.batch_size + positions
        mask = (positions < self.unpadded_batch_size) & (indices < self.examples)
        return jnp.where(mask, indices, 0), mask


def epoch_order(rng: jax.Array, epoch: ArrayLike, index: ArrayLike) -> jax.Array:
    """Returns the indices of the training examples in the order of an epoch: [examples] int32.

    Args:
      rng: the PRNG key of the run.
      epoch: [] int32, the number of the epoch.
      index: [examples] int32, the indices of the training examples in the data set.
    """
    return jax.random.permutation(jax.random.fold_in(rng, epoch), index)
