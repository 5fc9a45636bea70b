"""Extension of a finished run: more steps, from its last checkpoint on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from flaxdigits.config import ExperimentConfig, complete, flatten
from flaxdigits.data.batches import BatchPlan
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.experiment import total_steps
from flaxdigits.training.run_folder import LENGTH, RunFolder


def before_extension(folder: RunFolder, config: ExperimentConfig) -> ExperimentConfig | None:
    """Returns the config with the length of the finished run in a folder.

    Returns None if there is no finished run in it, or `config` has the same length.

    Raises:
      FlaxdigitsError: if a file of the run is damaged.
    """
    if not folder.contains_run() or folder.result() is None:
        return None
    recorded = flatten(complete(folder.recorded()["config"]))
    length = {name: recorded.get(f"train.{name}") for name in LENGTH}
    is_damaged = length["epochs"] is None
    if is_damaged or all(getattr(config.train, name) == value for name, value in length.items()):
        return None
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **length))


def check_extension(folder: RunFolder, config: ExperimentConfig, dataset: Dataset) -> None:
    """Checks that the steps of a finished run are the first steps of a run with this config.

    Args:
      folder: of the finished run.
      config: of that run, with another length.
      dataset: of the run.

    Raises:
      FlaxdigitsError: if the new length is not greater, or the learning rates of the steps that
        are done depend on it.
    """
    plan = BatchPlan(
        len(split_indices(config.data, dataset)["train"]), config.train.batch_size, devices=1)
    done, total = folder.result()["steps"], total_steps(config.train, plan)
    if total <= done:
        field = "epochs" if config.train.steps is None else "steps"
        raise FlaxdigitsError(
            f"{folder.path}: the run is complete with {done} steps, and train.{field}="
            f"{getattr(config.train, field)} makes {total}: set more to extend it, or choose "
            "another --workdir")
    optimizer, steps = config.optimizer, jnp.arange(done)
    old, new = (np.asarray(jax.vmap(optimizer.schedule.build(
        optimizer.learning_rate, length, plan.steps_per_epoch))(steps)) for length in (done, total))
    if not np.array_equal(old, new):
        raise FlaxdigitsError(
            f"{folder.path}: the run cannot be extended: the learning rates of optimizer.schedule="
            f"{optimizer.schedule.name} depend on the length of the run; to train longer, start "
            f"another run from the weights of this one: --set train.init_from={folder.path}")
