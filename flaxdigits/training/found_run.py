"""The run that a folder contains when training starts, which is resumed, extended or complete."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxdigits.config import ExperimentConfig, complete, flatten
from flaxdigits.data.batches import BatchPlan
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.experiment import total_steps
from flaxdigits.training.results import Outcome
from flaxdigits.training.run_folder import LENGTH, RunFolder


@dataclasses.dataclass(frozen=True)
class FoundRun:
    """The run that a folder already contains when training starts in it.

    Attributes:
      result: the content of `result.json`, or None if the run has not finished.
      diverged: the content of `diverged.json`, or None if the run has not diverged.
      config_before_extension: the config with the length of the finished run, if the config has
        another length; otherwise None.
    """

    result: dict[str, Any] | None
    diverged: dict[str, Any] | None
    config_before_extension: ExperimentConfig | None

    @property
    def is_done(self) -> bool:
        """Whether there are no steps to train."""
        has_ended = self.result is not None or self.diverged is not None
        return has_ended and self.config_before_extension is None

    def outcome(self, total_steps: int) -> Outcome:
        """Returns the outcome of a run that is done."""
        if self.result is not None:
            return Outcome(self.result["steps"], total_steps, self.result)
        return Outcome(
            self.diverged["step"], total_steps, None, diverged=self.diverged["message"])


def find_run(folder: RunFolder, config: ExperimentConfig) -> FoundRun | None:
    """Reads the run that a folder contains; returns None if there is none.

    Args:
      folder: the folder, which training with `config` starts in.
      config: the config, which may have another length than a finished run.

    Raises:
      FlaxdigitsError: if a file of the run is damaged.
    """
    if not folder.contains_run():
        return None
    result = folder.result()
    before = None if result is None else _with_recorded_length(folder, config)
    return FoundRun(result, folder.diverged(), before)


def _with_recorded_length(folder: RunFolder, config: ExperimentConfig) -> ExperimentConfig | None:
    """Returns a config with the length that is recorded in a folder; None if it has that length."""
    recorded = flatten(complete(folder.recorded()["config"]))
    length = {name: recorded.get(f"train.{name}") for name in LENGTH}
    is_damaged = length["epochs"] is None
    if is_damaged or all(getattr(config.train, name) == value for name, value in length.items()):
        return None
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **length))


def check_extension(
    folder: RunFolder, done: int, config: ExperimentConfig, dataset: Dataset
) -> None:
    """Checks that the steps of a finished run are the first steps of a run with this config.

    Args:
      folder: of the finished run.
      done: the number of its steps.
      config: of that run, with another length.
      dataset: of the run.

    Raises:
      FlaxdigitsError: if the new length is not greater, or the learning rates of the steps that
        are done depend on it.
    """
    plan = BatchPlan(
        len(split_indices(config.data, dataset)["train"]), config.train.batch_size, devices=1)
    total = total_steps(config.train, plan)
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
