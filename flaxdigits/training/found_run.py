"""Finds the run that a folder contains when training starts, and extends it if it has finished."""

import dataclasses
import logging
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
from flaxdigits.training.parallel import is_writer
from flaxdigits.training.results import Outcome
from flaxdigits.training.run_folder import LENGTH_FIELDS, RunFolder

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FoundRun:
    """The run that a folder already contains when training starts in it.

    Attributes:
      result: the content of `result.json`, or None if the run has not finished.
      diverged: the content of `diverged.json`, or None if the run has not diverged.
      old_length_config: if the config with which training starts has another length than the run,
        this config with the length of the run; otherwise None.
    """

    result: dict[str, Any] | None
    diverged: dict[str, Any] | None
    old_length_config: ExperimentConfig | None

    @property
    def is_done(self) -> bool:
        """Whether there are no steps to train."""
        has_ended = self.result is not None or self.diverged is not None
        return has_ended and self.old_length_config is None

    def outcome(self, total_steps: int) -> Outcome:
        """Returns the outcome of a run that is done."""
        if self.result is not None:
            return Outcome(self.result["steps"], total_steps, self.result)
        assert self.diverged is not None  # the run is done
        return Outcome(
            self.diverged["step"], total_steps, None, diverged=self.diverged["message"])


def find_run(folder: RunFolder, config: ExperimentConfig) -> FoundRun | None:
    """Reads the run that a folder contains; returns None if there is none.

    Args:
      folder: the folder in which training with `config` starts.
      config: the config, which may have another length than the run.

    Raises:
      FlaxdigitsError: if a file of the run is damaged, or the folder contains files of a run but no
        `config.json`.
    """
    if not folder.contains_run():
        return None
    return FoundRun(
        folder.result(), folder.diverged(), _with_recorded_length(folder, config))


def _with_recorded_length(folder: RunFolder, config: ExperimentConfig) -> ExperimentConfig | None:
    """Returns a config with the length that is recorded in a folder; None if it has that length."""
    recorded = flatten(complete(folder.recorded()["config"]))
    length = {name: recorded.get(f"train.{name}") for name in LENGTH_FIELDS}
    is_damaged = length["epochs"] is None
    if is_damaged or all(getattr(config.train, name) == value for name, value in length.items()):
        return None
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **length))


def check_length(
    folder: RunFolder, found: FoundRun, config: ExperimentConfig, dataset: Dataset
) -> None:
    """Checks that a run can be extended to the length of a config.

    The completed steps must be identical to the first steps of the longer run. Only a finished run
    can be extended. Until the extended run finishes, its length can be changed again; it can be set
    back to the length of the finished run as long as there is no later checkpoint.

    Args:
      folder: the folder of the run.
      found: the run, whose length differs from that of `config`.
      config: the config of the run with the new length.
      dataset: the data set of the run.

    Raises:
      FlaxdigitsError: if the run has diverged, or is neither finished nor being extended; if it has
        completed at least as many steps as the new length; or if the schedule of the new length
        gives other learning rates for the completed steps.
    """
    assert found.old_length_config is not None
    plan = _batch_plan(config, dataset)
    old_total, total = (total_steps(each.train, plan) for each in (found.old_length_config, config))
    old_length, new_length = _lengths(found.old_length_config, config)
    extended_at = folder.recorded().get("extended_at", [])
    result, diverged = found.result, found.diverged
    completed = result["steps"] if result else max([folder.newest_step(), *extended_at])
    if diverged is not None:
        raise FlaxdigitsError(
            f"{folder.path}: the run diverged at step {diverged['step']:,} and cannot be extended: "
            "choose another workdir")
    if result is None and not extended_at:
        raise FlaxdigitsError(
            f"{folder.path}: the run is unfinished at step {completed:,} of {old_total:,}, and "
            f"{new_length} gives {total:,} steps: resume it with {old_length} (a finished run can "
            "be extended), or choose another workdir")
    is_set_back = result is None and total == completed == extended_at[-1]
    if total <= completed and not is_set_back:
        kept_result_hint = (f"; result.{total}.json contains the result of {total:,} steps"
                            if total in extended_at else "")
        state = (f"has finished with {completed:,} steps" if result else
                 f"is being extended and is at step {completed:,} of {old_total:,}")
        advice = ("set a larger value to extend it, start another run from its weights with "
                  f"train.init_from={folder.path}" if result else
                  f"resume it with {old_length}, set more than {completed:,} steps")
        raise FlaxdigitsError(
            f"{folder.path}: the run {state}, but {new_length} gives {total:,} steps: {advice}, "
            f"or choose another workdir{kept_result_hint}")
    optimizer, steps = config.optimizer, jnp.arange(completed)
    old, new = (np.asarray(jax.vmap(optimizer.schedule.build(
        optimizer.learning_rate, length, plan.steps_per_epoch))(steps))
        for length in (old_total, total))
    if not np.array_equal(old, new):
        raise FlaxdigitsError(
            f"{folder.path}: the run cannot be extended: the learning rates of optimizer.schedule="
            f"{optimizer.schedule.name} depend on the length of the run; to train longer, start "
            f"another run from the weights of this run: train.init_from={folder.path}")


def change_length(
    folder: RunFolder, config: ExperimentConfig, dataset: Dataset, command: str | None
) -> None:
    """Sets the length in `config.json` to that of `config`, which `check_length` has accepted.

    `config.json` records the first length and the steps at which the run was extended. The result
    of a finished run is copied to `result.<steps>.json`, and stays in `result.json` until the
    extended run finishes. If the length is set back to that of the finished run, the extension is
    undone, and the later rows of `metrics.jsonl` are removed.

    Args:
      folder: the folder of the run, which is finished or being extended; the caller has locked it.
      config: the config with the new length.
      dataset: the data set of the run.
      command: the command that changes the length, to be recorded; None if it is unknown.

    Raises:
      FlaxdigitsError: if a file cannot be written.
    """
    if not is_writer():
        return
    recorded, result = folder.recorded(), folder.result()
    train, extended_at = recorded["config"]["train"], recorded.get("extended_at", [])
    total = total_steps(config.train, _batch_plan(config, dataset))
    if result is not None:
        folder.write_json(f"result.{result['steps']}.json", result)
        extended_at = [*extended_at, result["steps"]]
    elif total == extended_at[-1]:
        folder.truncate_metrics(total)
        extended_at = extended_at[:-1]
    folder.write_json("config.json", {
        "first_length": {name: train.get(name) for name in LENGTH_FIELDS}, **recorded,
        "config": recorded["config"] | {
            "train": train | {name: getattr(config.train, name) for name in LENGTH_FIELDS}},
        "extended_at": extended_at} | ({} if command is None else {"command": command}))
    _log.info("%s: %s", folder.path, f"the run is extended to {total:,} steps"
              if total not in recorded.get("extended_at", ()) else
              f"the extension is undone: the run is finished with {total:,} steps")


def _batch_plan(config: ExperimentConfig, dataset: Dataset) -> BatchPlan:
    return BatchPlan(
        len(split_indices(config.data, dataset)["train"]), config.train.batch_size, devices=1)


def _lengths(*configs: ExperimentConfig) -> list[str]:
    """Returns for each config the length fields in which they differ, such as `train.epochs=5`."""
    values = [{name: getattr(config.train, name) for name in LENGTH_FIELDS} for config in configs]
    names = [name for name in LENGTH_FIELDS if len({length[name] for length in values}) > 1]
    return [" and ".join(f"train.{name}={'none' if length[name] is None else length[name]}"
                         for name in names) for length in values]
