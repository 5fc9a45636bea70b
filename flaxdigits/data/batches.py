"""The order of the training examples: a pure function of the seed and the step."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """How an epoch of `examples` is cut into batches; the last, smaller one is masked.

    Attributes:
      examples: in an epoch.
      batch_size: examples of a step, over all devices.
      devices: over which a batch is spread.
    """

    examples: int
    batch_size: int
    devices: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every example is seen once."""
        return -(-self.examples // self.batch_size)

    @property
    def rows(self) -> int:
        """Examples of the largest batch: fewer than `batch_size` if there are no more."""
        return min(self.batch_size, self.examples)

    @property
    def padded_batch_size(self) -> int:
        """Rows of the batch in memory: the same number on every device."""
        return -(-self.rows // self.devices) * self.devices

    def select(self, step: jax.Array, places: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where a step's examples stand in the epoch's order, and which of them are real.

        Args:
          step: [] int32, counted from the start of training.
          places: [rows] int32, places in the global batch.

        Returns:
          positions: [rows] int32 within the epoch; of a padding row, some valid one.
          mask: [rows] bool, False for padding.
        """
        positions = step % self.steps_per_epoch * self.batch_size + places
        mask = (places < self.rows) & (positions < self.examples)
        return jnp.where(mask, positions, 0), mask


def epoch_order(rng: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """The split's raw indices, shuffled for one epoch: [examples] int32."""
    return jax.random.permutation(jax.random.fold_in(rng, epoch), index)
