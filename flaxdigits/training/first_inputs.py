"""Computes the first inputs of the network in a run."""

import functools

import jax
import numpy as np

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.batches import epoch_order
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.inputs import training_inputs
from flaxdigits.training.state import stream


def first_inputs(
    config: ExperimentConfig, dataset: Dataset, index: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs of the first steps, in the order and with the augmentation of the run.

    Args:
      config: the config of the run.
      dataset: the data set of the run.
      index: [examples] int32, the rows of the training split.
      count: the number of inputs; fewer are returned if the split is smaller.

    Returns:
      images: [count, height, width, channels] float32.
      labels: [count] int32.
    """
    order = np.asarray(epoch_order(stream(config.seed, "order"), 0, index))[:count]
    key, size = stream(config.seed, "augmentation"), config.train.batch_size
    inputs = jax.jit(functools.partial(training_inputs, config=config.data))
    images = [
        inputs(dataset.images[rows], np.arange(len(rows), dtype=np.int32),
               jax.random.fold_in(key, step))
        for step, rows in enumerate(np.split(order, range(size, len(order), size)))]
    return np.concatenate(images), dataset.labels[order]
