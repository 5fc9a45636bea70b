"""The order of the training examples: a pure function of the seed and the step."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """Divides an epoch of `examples` into batches; the last, smaller one is masked.

    Attributes:
      examples: the number of examples in an epoch.
      batch_size: the number of examples of a step, over all devices.
      devices: the number of devices over which a batch is sharded.
    """

    examples: int
    batch_size: int
    devices: int

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in which every example is used once."""
        return -(-self.examples // self.batch_size)

    @property
    def rows(self) -> int:
        """Examples of the largest batch: fewer than `batch_size` if there are no more."""
        return min(self.batch_size, self.examples)

    @property
    def padded_batch_size(self) -> int:
        """Rows of the batch in memory: the same number on every device."""
        return -(-self.rows // self.devices) * self.devices

    def select(self, step: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the indices of a step's examples in the epoch's order, and a mask of padding.

        Args:
          step: [] int32, counted from the start of training.
          positions: [rows] int32, positions in the global batch.

        Returns:
          indices: [rows] int32 within the epoch; any valid index for a row of padding.
          mask: [rows] bool, False for padding.
        """
        indices = step % self.steps_per_epoch * self.batch_size + positions
        mask = (positions < self.rows) & (indices < self.examples)
        return jnp.where(mask, indices, 0), mask


def epoch_order(rng: jax.Array, epoch: ArrayLike, index: ArrayLike) -> jax.Array:
    """Returns the split's indices in the data set, shuffled for one epoch: [examples] int32."""
    return jax.random.permutation(jax.random.fold_in(rng, epoch), index)
