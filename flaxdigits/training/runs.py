"""Trains one run, or several that differ only in their seed or fold.

Each run has its own folder and checkpoints, so that it can be read and resumed without the others.
What happens in a run is in `flaxdigits.training.trainer`; here the runs share one compiled program
(`flaxdigits.training.program`).
"""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from flaxdigits.command import command_line
from flaxdigits.config import ExperimentConfig, complete, flatten, to_dict, validate
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.training import provenance
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.found_run import FoundRun, change_length, check_length, find_run
from flaxdigits.training.freezing import split_params
from flaxdigits.training.interrupts import Interrupts, received_signal
from flaxdigits.training.parallel import all_reduce, check_same_everywhere, is_writer
from flaxdigits.training.precision import warn_about_precision_on_cpu
from flaxdigits.training.program import StepReply, StepRequest, TrainProgram
from flaxdigits.training.results import Outcome, ReportWriter, no_report
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.state import count_parameters
from flaxdigits.training.teacher import Teacher, load_teacher, teacher_digest
from flaxdigits.training.trackers import Tracker, Trackers
from flaxdigits.training.trainer import train_run
from flaxdigits.training.weights import SavedWeights, load_weights

# A compiled call takes about this long: short enough to stop or report soon, long enough that the
# return to Python costs nothing. A call makes several steps even if they are slow, because each
# call allocates its working memory anew (kaggle_cnn: 0.2 s, 0.5 s beside other programs).
SECONDS_PER_CALL = 0.5
STEPS_PER_CALL = 4

_log = logging.getLogger(__name__)


def train_many(
    configs: Mapping[Path, ExperimentConfig], dataset: Dataset,
    trackers: Callable[[Path], Sequence[Tracker]] = lambda workdir: (),
    on_end: Callable[[Path, Outcome], None] = lambda workdir, outcome: None,
    write_report: ReportWriter = no_report, progress: Progress = NO_PROGRESS,
) -> dict[Path, Outcome]:
    """Trains or resumes one or several runs with one compiled program, and evaluates them.

    A run that diverges does not stop the others.

    Args:
      configs: the config of each run by its run folder; they may differ only in `seed` and
        `data.fold`.
      dataset: the data set of all runs, as `load_dataset(config.data)` returns it.
      trackers: returns the trackers of a run folder. Of runs that are trained at the same time,
        only the first is tracked.
      on_end: called with each run that has finished, diverged or was paused.
      write_report: called with each finished run, before `result.json` is written.
      progress: is notified of long stages other than the train steps.

    Returns:
      The outcomes by run folder; after a signal, some runs may be missing.

    Raises:
      FlaxdigitsError: if a config does not fit the data or its folder, a file cannot be read or
        written, or another process trains in one of the folders. Saved checkpoints are kept.
    """
    folders = {path: RunFolder(path, is_writer()) for path in configs}
    found = {path: find_run(folders[path], config) for path, config in configs.items()}
    experiment, variables, metadata = _prepare(configs, folders, found, dataset, progress)
    outcomes: dict[Path, Outcome] = {}

    def end(path: Path, outcome: Outcome) -> None:
        outcomes[path] = outcome
        on_end(path, outcome)

    waiting = []
    for path, run in found.items():
        if run is not None and run.old_length_config is not None:
            run = find_run(folders[path], configs[path])  # `_prepare` has recorded the new length
        if run is not None and run.is_done:
            end(path, run.outcome(experiment.total_steps))
        else:
            folders[path].check_writable()
            waiting.append(path)
    program = TrainProgram(experiment, len(configs))
    with Interrupts() as interrupts:
        while waiting and not received_signal(interrupts):
            paths, waiting = waiting[:program.runs_per_call], waiting[program.runs_per_call:]
            with contextlib.ExitStack() as stack:
                runs = {}
                for path in paths:
                    stack.enter_context(folders[path].locked())
                    folders[path].record_config(validate(configs[path]), metadata)
                    run_trackers = Trackers(
                        trackers(path) if path == paths[0] and is_writer() else ())
                    runs[path] = train_run(
                        experiment.with_config(configs[path]), folders[path], run_trackers,
                        interrupts, variables, write_report, progress)
                    stack.callback(runs[path].close)
                group = RunGroup(program, runs, end, progress)
                while group.requests:
                    start = time.perf_counter()
                    output = program.steps(*group.arguments())
                    group.send(output, start)
    return outcomes


def _prepare(
    configs: Mapping[Path, ExperimentConfig], folders: Mapping[Path, RunFolder],
    found: Mapping[Path, FoundRun | None], dataset: Dataset, progress: Progress,
) -> tuple[Experiment, dict[str, Any] | None, dict[str, Any]]:
    """Checks the runs, and then writes their `config.json`.

    Returns:
      The experiment of the first run, the variables from which new runs start (None: newly
      initialized ones), and the other fields of `config.json`.
    """
    config, *_ = configs.values()
    with progress.stage("building the network"):
        experiment = Experiment.create(validate(config), dataset)
        experiment.check_step_memory()
    warn_about_precision_on_cpu(config.train.precision)
    _log_frozen(experiment)
    _check_together(list(configs.values()))
    check_same_everywhere("config", list(configs.values()))
    check_same_everywhere("data", dataset.identity())
    check_same_everywhere("run folder", [folder.contents() for folder in folders.values()])
    weights = _initial_weights(config, list(folders.values()))
    variables = None
    if weights is not None and not all(folder.has_checkpoints() for folder in folders.values()):
        variables = weights.variables_for(
            experiment.variables_shapes, len(dataset.class_names), config,
            experiment.image_shape)
        _log_preprocessing(config, weights.run)
    teacher = None
    if not all(run is not None and run.is_done for run in found.values()):
        teacher = load_teacher(config, dataset)
        experiment = experiment.with_teacher(teacher)
    metadata = _metadata(dataset, weights, teacher, is_recorded=None not in found.values())
    _record_configs(configs, folders, found, metadata, dataset)
    return experiment, variables, metadata


class RunGroup:
    """Runs that share the calls of a program, until each has ended.

    The runs with the fewest steps are advanced first, until all are at the same step.

    Args:
      program: the compiled train steps.
      runs: the generators that `train_run` returns, by run folder.
      on_end: called with each run that has ended.
      progress: is notified of compiling.

    Attributes:
      requests: the requests of the runs that have not ended.
    """

    def __init__(
        self, program: TrainProgram,
        runs: Mapping[Path, Generator[StepRequest, StepReply, Outcome]],
        on_end: Callable[[Path, Outcome], None], progress: Progress,
    ) -> None:
        self._program, self._runs, self._on_end = program, runs, on_end
        self.requests: dict[Path, StepRequest] = {}
        self._rate = 1.0  # steps per second
        for path in runs:
            self._resume(path, None)
        self._seconds_compiling = 0.0
        if self.requests:
            with progress.stage("compiling the train step"):
                self._seconds_compiling = program.seconds_compiling() / len(self.requests)

    def arguments(self) -> tuple[Any, ...]:
        """Returns the arguments of the program's next steps.

        Only the runs with the fewest completed steps are advanced; the others make 0 steps.
        """
        step = min(request.step for request in self.requests.values())
        self._active = [path for path, request in self.requests.items() if request.step == step]
        self._num_steps = min(
            self.requests[self._active[0]].max_steps,
            all_reduce(max(STEPS_PER_CALL, int(SECONDS_PER_CALL * self._rate)), np.min))
        return self._program.arguments(
            [self.requests.get(path) for path in self._runs],
            [self._num_steps if path in self._active else 0 for path in self._runs])

    def send(self, output: tuple[Any, Any], start: float) -> None:
        """Sends the new states to the runs that were advanced, and receives their next requests.

        Args:
          output: the values that the program's steps returned for `arguments`.
          start: the value of `time.perf_counter()` before these steps.
        """
        requests = [self.requests.get(path) for path in self._runs]
        results = self._program.results(requests, output)
        seconds = time.perf_counter() - start
        self._rate = self._num_steps / seconds
        compiling, self._seconds_compiling = self._seconds_compiling, 0.0
        for path, (state, metrics) in zip(self._runs, results, strict=True):
            if path in self._active:
                self._resume(path, StepReply(
                    state, metrics, self._rate, seconds_training=seconds / len(self._active),
                    seconds_compiling=compiling))
            elif path in self.requests:  # not advanced, but its state was donated, too
                self.requests[path] = dataclasses.replace(self.requests[path], state=state)

    def _resume(self, path: Path, reply: StepReply | None) -> None:
        """Runs a generator until its next request (None: from its start), or to its end."""
        try:
            run = self._runs[path]
            self.requests[path] = next(run) if reply is None else run.send(reply)
        except StopIteration as stop:
            self.requests.pop(path, None)
            self._on_end(path, stop.value)


def _check_together(configs: Sequence[ExperimentConfig]) -> None:
    """Raises FlaxdigitsError if these runs cannot share a program."""
    if len(configs) == 1:
        return
    first = to_dict(configs[0])
    for config in configs:
        values = to_dict(config) | {"seed": first["seed"]}
        values["data"] |= {"fold": first["data"]["fold"]}
        if values != first:
            raise FlaxdigitsError(
                f"{config.experiment}: runs that are trained together may differ only in seed "
                "and data.fold")
    if jax.process_count() > 1:
        raise FlaxdigitsError(
            "several runs can only be trained together by a single process: start one process, or "
            "train each seed separately with seed=")
    if configs[0].train.parallel == "pmap":
        raise FlaxdigitsError(
            "train.parallel=pmap shards the batches of a single run over the devices; several "
            "seeds or folds are trained on one device each: use train.parallel=jit")


def _log_frozen(experiment: Experiment) -> None:
    """Logs which parameters `train.freeze` excludes from training."""
    params, freeze = experiment.state_shapes.params, experiment.config.train.freeze
    if freeze and is_writer():
        _, frozen = split_params(params, freeze)
        layers = sorted({"/".join(path[:-1] or path) for path in flatten_dict(frozen)})
        _log.info("train.freeze: %s of %s parameters are frozen: those of %s",
                  f"{count_parameters(frozen):,}", f"{count_parameters(params):,}",
                  ", ".join(layers))


def _log_preprocessing(config: ExperimentConfig, source: RunFolder) -> None:
    """Logs a warning if the weights of `source` were trained with another preprocessing."""
    before = flatten(complete(source.recorded()["config"])).get("data.preprocessing")
    if before != config.data.preprocessing and is_writer():
        _log.warning("train.init_from: %s was trained with data.preprocessing=%s, and this run has "
                     "%s", source.path, before, config.data.preprocessing)


def _initial_weights(
    config: ExperimentConfig, folders: Sequence[RunFolder]
) -> SavedWeights | None:
    """Returns the weights of `train.init_from`, if any.

    Raises:
      FlaxdigitsError: if the weights cannot be read, and a run without a checkpoint needs them.
    """
    if config.train.init_from is None:
        return None
    try:
        return load_weights(config.train.init_from)
    except FlaxdigitsError:
        if not all(folder.has_checkpoints() for folder in folders):
            raise
        return None


def _record_configs(
    configs: Mapping[Path, ExperimentConfig], folders: Mapping[Path, RunFolder],
    found: Mapping[Path, FoundRun | None], metadata: dict[str, Any], dataset: Dataset,
) -> None:
    """Writes the `config.json` of each run, or checks that the existing one describes this run.

    A finished run whose config has a new length is extended. All folders are checked before the
    first is written, and each is written under its lock.

    Raises:
      FlaxdigitsError: as `RunFolder.record_config` does, or if another process trains in one of
        the folders.
    """
    for path, run in found.items():
        if run is not None:
            _check_found(run, folders[path], configs[path], metadata, dataset)
    for path, run in found.items():
        if run is None or not run.is_done:
            with folders[path].locked():
                record_config_or_length(folders[path], configs[path], dataset, metadata)
    all_reduce(0, np.max)  # no process reads the folders before they are written


def record_config_or_length(
    folder: RunFolder, config: ExperimentConfig, dataset: Dataset, metadata: dict[str, Any]
) -> None:
    """Writes the `config.json` of a run, or changes the recorded length of a finished run.

    Args:
      folder: the run folder, which the caller has locked.
      config: the config of the run.
      dataset: the data set of the run.
      metadata: see `RunFolder.record_config`.

    Raises:
      FlaxdigitsError: as `RunFolder.record_config` does.
    """
    found = find_run(folder, config)  # again, because another process may have had the lock
    if found is not None and found.old_length_config is not None:
        change_length(folder, config, dataset, metadata.get("command"))
    else:
        folder.record_config(validate(config), metadata)


def _metadata(
    dataset: Dataset, weights: SavedWeights | None, teacher: Teacher | None, is_recorded: bool
) -> dict[str, Any]:
    """Returns the fields of `config.json` other than the config, see `RunFolder.record_config`.

    Args:
      dataset: the data set of the runs.
      weights: the weights of `train.init_from`, if any.
      teacher: the network that the objective learns from, if any.
      is_recorded: whether every run folder has its `config.json`. In this case the description of
        the data, which takes a second or two for custom data, is not needed.
    """
    metadata = {
        "data": dataset.identity() if is_recorded else dataset.description(),
        "versions": provenance.versions(), "git_commit": provenance.git_commit(),
        "machine": provenance.machine(), "command": command_line()}
    if weights is not None:
        metadata["init_from"] = weights.digest
    if teacher is not None:
        metadata["teacher"] = teacher.digest
    return metadata


def check_folders(configs: Mapping[Path, ExperimentConfig], dataset: Dataset) -> None:
    """Checks that runs can be started, resumed or extended in their folders; writes nothing.

    Args:
      configs: the config of each run by its run folder.
      dataset: the data set of all runs.

    Raises:
      FlaxdigitsError: if one of the folders contains another run.
    """
    @functools.cache  # computed once: all seeds have the same train.init_from
    def init_digest(init_from: str | None) -> str | None:
        with contextlib.suppress(FlaxdigitsError):  # a resumed run does not need these weights
            return None if init_from is None else load_weights(init_from).digest

    @functools.cache
    def teacher(config: ExperimentConfig) -> str | None:
        return teacher_digest(config, dataset)

    for path, config in configs.items():
        folder = RunFolder(path)
        found = find_run(folder, config)
        if found is not None:
            _check_found(found, folder, config, {
                "data": dataset.identity(), "init_from": init_digest(config.train.init_from),
                "teacher": teacher(dataclasses.replace(config, seed=0))}, dataset)


def _check_found(
    found: FoundRun, folder: RunFolder, config: ExperimentConfig, metadata: Mapping[str, Any],
    dataset: Dataset,
) -> None:
    """Raises FlaxdigitsError if a run cannot be resumed, or extended, with this config."""
    folder.check_same(validate(found.old_length_config or config), metadata)
    if found.old_length_config is not None:
        check_length(folder, found, config, dataset)
