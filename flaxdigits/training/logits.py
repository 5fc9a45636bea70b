"""Computes the logits of every selected example exactly once, in one compiled program."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flaxdigits.data.preprocessing import preprocess
from flaxdigits.training.precision import matmul_precision

BATCHES_PER_CALL = 32  # the batches of a compiled call, after which progress is reported


class LogitsProgram:
    """Computes the logits of any selection of a data set that is in device memory.

    Args:
      model: a linen module; it is applied in evaluation mode.
      preprocessing: the name of the preprocessing (`flaxdigits.data.preprocessing.preprocess`).
      batch_size: the number of examples in a batch. Results do not depend on it except for
        rounding. None: 32 on a CPU, so that a convolution fits into its caches; 1,000 elsewhere.
      devices: the devices that share each batch (`flaxdigits.training.parallel.Devices`).
    """

    def __init__(
        self, model: nn.Module, preprocessing: str, batch_size: int | None, devices: Any
    ) -> None:
        batch_size = batch_size or (32 if jax.default_backend() == "cpu" else 1000)
        self._batch_size = -(-batch_size // devices.count) * devices.count
        self._devices = devices
        self._compiled = jax.jit(
            functools.partial(_logits, model, preprocessing, devices.shard_batch),
            out_shardings=devices.replicated)

    def __call__(
        self, variables: Any, images: jax.Array, index: np.ndarray,
        advance: Callable[[int], None] = lambda done: None,
    ) -> np.ndarray:
        """Computes the logits of `images[index]`.

        Args:
          variables: the variables of the model.
          images: [examples, height, width, channels] uint8, in device memory.
          index: [selected] int32.
          advance: called with the number of examples whose logits are computed.

        Returns:
          The logits: [selected, classes] float32.
        """
        size = min(self._batch_size, -(-len(index) // self._devices.count) * self._devices.count)
        num_batches = -(-len(index) // size)
        num_calls = -(-num_batches // BATCHES_PER_CALL)
        per_call = -(-num_batches // num_calls)  # the same for all calls, which share a program
        padded = np.zeros(num_calls * per_call * size, np.int32)
        padded[:len(index)] = index
        logits = []
        for batches in padded.reshape(num_calls, per_call, size):
            part = self._compiled(variables, images, self._devices.replicate(batches))
            logits.append(np.asarray(part).reshape(batches.size, -1))
            advance(min(len(logits) * batches.size, len(index)))
        return np.concatenate(logits)[:len(index)]


def _logits(
    model: nn.Module, preprocessing: str, shard_batch: Any, variables: Any, images: jax.Array,
    batches: jax.Array,
) -> jax.Array:
    """Returns the logits of batches: [batches, batch_size, classes] float32."""
    def batch_logits(index: jax.Array) -> jax.Array:
        batch = shard_batch(images[index])
        logits: Any = model.apply(variables, preprocess(batch, preprocessing), None)
        return logits.astype(jnp.float32)

    with matmul_precision("fp32"):  # whatever precision the weights were trained with
        return lax.map(batch_logits, batches)
