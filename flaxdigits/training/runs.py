"""Training of one run, or of several that differ only in their seed or fold.

Each run has the folder and the checkpoints that it would have by itself, so that whatever reads a
run does not depend on the others, and a run can be resumed by itself or together with others. What
happens in a run is in `flaxdigits.training.trainer`; here the runs share one compiled program
(`flaxdigits.training.program`). Those with the fewest steps are advanced first, until all are at
the same step.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxdigits.config import ExperimentConfig, to_dict, validate
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.training import provenance
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.parallel import all_reduce, check_same_everywhere, is_writer
from flaxdigits.training.precision import warn_of_precision_on_cpu
from flaxdigits.training.program import StepReply, StepRequest, TrainProgram
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.teacher import Teacher, load_teacher, teacher_digest
from flaxdigits.training.trackers import Tracker, Trackers
from flaxdigits.training.trainer import (
    FinishedRun,
    Outcome,
    ReportWriter,
    received_signal,
    train_run,
)
from flaxdigits.training.weights import SavedWeights, load_weights

# A compiled call takes about this long: short enough to stop or report soon, long enough that the
# return to Python costs nothing. A call makes several steps even if they are slow, because each
# call allocates its working memory anew (kaggle_cnn: 0.2 s, 0.5 s beside other programs).
SECONDS_PER_CALL = 0.5
STEPS_PER_CALL = 4


def no_report(run: FinishedRun) -> Mapping[str, Path]:
    """Writes no report; a `ReportWriter`."""
    return {}


def train(
    config: ExperimentConfig, dataset: Dataset, workdir: Path,
    trackers: Sequence[Tracker] = (), write_report: ReportWriter = no_report,
    progress: Progress = NO_PROGRESS,
) -> Outcome:
    """Trains a run or resumes it, and evaluates it.

    Args:
      config: of the experiment.
      dataset: of `flaxdigits.data.dataset.load_dataset(config.data)`.
      workdir: the run folder; see `flaxdigits.training.run_folder`.
      trackers: called as the run advances; see `flaxdigits.training.trackers`.
      write_report: called when the run is complete, before `result.json` is written.
      progress: is notified of what takes long beside the train steps.

    Raises:
      FlaxdigitsError: if the config does not fit the data or the folder, a file cannot be read or
        written, or the loss stops being finite; what was saved before stays.
    """
    workdir = Path(workdir)
    outcome = train_many({workdir: config}, dataset, lambda path: trackers,
                         write_report=write_report, progress=progress)[workdir]
    if outcome.diverged is not None:
        raise FlaxdigitsError(outcome.diverged)
    return outcome


def train_many(
    configs: Mapping[Path, ExperimentConfig], dataset: Dataset,
    trackers: Callable[[Path], Sequence[Tracker]] = lambda workdir: (),
    on_end: Callable[[Path, Outcome], None] = lambda workdir, outcome: None,
    write_report: ReportWriter = no_report, progress: Progress = NO_PROGRESS,
) -> dict[Path, Outcome]:
    """Trains several runs with one compiled program; a run that diverges does not stop the others.

    Args:
      configs: by run folder; they may differ only in `seed` and `data.fold`.
      dataset: of all runs.
      trackers: returns the trackers of a run folder; of runs that are trained at once, only the
        first is reported.
      on_end: called with each run that has ended, diverged or was paused.
      write_report: called with each run that is complete, before `result.json` is written.
      progress: as for `train`.

    Returns:
      The outcomes by run folder; after a signal, some runs may be missing.

    Raises:
      FlaxdigitsError: as `train` does, but not for a loss that is not finite; or if another
        process trains in one of the folders.
    """
    folders = {path: RunFolder(path, is_writer()) for path in configs}
    config, *_ = configs.values()
    with progress.stage("building the network"):
        experiment = Experiment.create(validate(config), dataset)
        experiment.check_step_memory()
    warn_of_precision_on_cpu(config.train.precision)
    _check_together(list(configs.values()))
    check_same_everywhere("config", list(configs.values()))
    check_same_everywhere("data", dataset.identity())
    check_same_everywhere("run folder", [folder.contents() for folder in folders.values()])
    weights = _initial_weights(config, list(folders.values()))
    variables = None
    if weights is not None and not all(folder.has_checkpoints() for folder in folders.values()):
        variables = weights.variables_for(experiment.state_shapes.variables())
    teacher = None
    if not all(folder.is_begun() and folder.has_ended() for folder in folders.values()):
        teacher = load_teacher(config, dataset)
        experiment = experiment.with_teacher(teacher)
    about = _about(
        dataset, weights, teacher, all(folder.is_begun() for folder in folders.values()))
    _start_folders(configs, folders, about)
    outcomes: dict[Path, Outcome] = {}

    def end(path: Path, outcome: Outcome) -> None:
        outcomes[path] = outcome
        on_end(path, outcome)

    waiting = []
    for path, folder in folders.items():
        ended = _ended(folder, experiment.total_steps)
        if ended is None:
            folder.check_writable()
            waiting.append(path)
        else:
            end(path, ended)
    program = TrainProgram(experiment, len(configs))
    with Interrupts() as interrupts:
        while waiting and not received_signal(interrupts):
            group, waiting = waiting[:program.size], waiting[program.size:]
            with contextlib.ExitStack() as stack:
                runs = {}
                for path in group:
                    stack.enter_context(folders[path].locked())
                    folders[path].start(validate(configs[path]), about)
                    run_trackers = Trackers(
                        trackers(path) if path == group[0] and is_writer() else ())
                    runs[path] = train_run(
                        experiment.with_config(configs[path]), folders[path], run_trackers,
                        interrupts, variables, write_report, progress)
                    stack.callback(runs[path].close)
                _advance(program, runs, end, progress)
    return outcomes


def _advance(
    program: TrainProgram, runs: Mapping[Path, Generator[StepRequest, StepReply, Outcome]],
    end: Callable[[Path, Outcome], None], progress: Progress,
) -> None:
    """Makes the train steps that the runs request, until each has ended."""
    requests: dict[Path, StepRequest] = {}

    def resume(path: Path, reply: StepReply | None) -> None:
        try:
            requests[path] = runs[path].send(reply)
        except StopIteration as stop:
            requests.pop(path, None)
            end(path, stop.value)

    for path in runs:
        resume(path, None)
    if requests:
        with progress.stage("compiling the train step"):
            program.compile()
    rate = 1.0  # steps per second
    while requests:
        step = min(request.step for request in requests.values())
        active = [path for path, request in requests.items() if request.step == step]
        compiling = program.seconds_compiling() / len(requests)
        count = min(requests[active[0]].max_count,
                    all_reduce(max(STEPS_PER_CALL, int(SECONDS_PER_CALL * rate)), np.min))
        start = time.perf_counter()
        advanced = program([requests.get(path) for path in runs],
                           [count if path in active else 0 for path in runs])
        seconds = time.perf_counter() - start
        rate = count / seconds
        for path, (state, metrics) in zip(runs, advanced, strict=False):
            if path in active:
                resume(path, StepReply(
                    state, metrics, rate, seconds_training=seconds / len(active),
                    seconds_compiling=compiling))
            elif path in requests:
                requests[path] = dataclasses.replace(requests[path], state=state)


def _check_together(configs: Sequence[ExperimentConfig]) -> None:
    """Raises FlaxdigitsError if these runs cannot share a program."""
    if len(configs) == 1:
        return
    first = to_dict(configs[0])
    for config in configs:
        own = to_dict(config) | {"seed": first["seed"]}
        own["data"] |= {"fold": first["data"]["fold"]}
        if own != first:
            raise FlaxdigitsError(
                f"{config.experiment}: runs that are trained together may differ in seed and "
                "data.fold alone")
    if jax.process_count() > 1:
        raise FlaxdigitsError(
            f"{len(configs)} runs at once are trained by one process with all its devices: start "
            "one process, or every seed by itself with --set seed=")
    if configs[0].train.parallel == "pmap":
        raise FlaxdigitsError(
            "train.parallel=pmap spreads the batches of one run over the devices; several seeds "
            "or folds are spread themselves: use train.parallel=jit")


def _initial_weights(
    config: ExperimentConfig, folders: Sequence[RunFolder]
) -> SavedWeights | None:
    """Returns the weights of `train.init_from`, if any.

    Raises:
      FlaxdigitsError: if they cannot be read, and a run has no checkpoint yet.
    """
    if config.train.init_from is None:
        return None
    try:
        return load_weights(config.train.init_from)
    except FlaxdigitsError:
        if not all(folder.has_checkpoints() for folder in folders):
            raise
        return None


def _start_folders(
    configs: Mapping[Path, ExperimentConfig], folders: Mapping[Path, RunFolder],
    about: dict[str, Any],
) -> None:
    """Writes the `config.json` of each run, or checks that the one there is of the same run.

    All folders are checked before the first is written, and each is written under its lock.

    Raises:
      FlaxdigitsError: as `RunFolder.start` does, or if another process trains in one of them.
    """
    _check_folders(configs, folders, about)
    for path, folder in folders.items():
        if not folder.is_begun() or not folder.has_ended():
            with folder.locked():
                folder.start(validate(configs[path]), about)


def _about(
    dataset: Dataset, weights: SavedWeights | None, teacher: Teacher | None, is_begun: bool
) -> dict[str, Any]:
    """Returns what `config.json` holds in addition to the config, see `RunFolder.start`.

    The description of custom data takes a second or two, and is made only for new runs.
    """
    about = {
        "data": dataset.identity() if is_begun else dataset.description(),
        "versions": provenance.versions(), "git_commit": provenance.git_commit(),
        "machine": provenance.machine()}
    if weights is not None:
        about["init_from"] = weights.digest
    if teacher is not None:
        about["teacher"] = teacher.digest
    return about


def check_folders(configs: Mapping[Path, ExperimentConfig], dataset: Dataset) -> None:
    """Raises FlaxdigitsError if one of these folders holds another run; nothing is written."""
    folders = {path: RunFolder(path) for path in configs}

    @functools.cache  # all seeds have the same
    def init_digest(init_from: str | None) -> str | None:
        with contextlib.suppress(FlaxdigitsError):  # a resumed run does not need them
            return None if init_from is None else load_weights(init_from).digest

    @functools.cache
    def teacher(config: ExperimentConfig) -> str | None:
        return teacher_digest(config, dataset)

    for path, config in configs.items():
        if folders[path].is_begun():
            _check_folders({path: config}, folders, {
                "data": dataset.identity(), "init_from": init_digest(config.train.init_from),
                "teacher": teacher(dataclasses.replace(config, seed=0))})


def _check_folders(
    configs: Mapping[Path, ExperimentConfig], folders: Mapping[Path, RunFolder],
    about: Mapping[str, Any],
) -> None:
    for path, config in configs.items():
        if folders[path].is_begun():
            folders[path].check_same(validate(config), about)


def _ended(folder: RunFolder, total_steps: int) -> Outcome | None:
    done, diverged = folder.result(), folder.diverged()
    if done is not None:
        return Outcome(done["steps"], total_steps, done)
    if diverged is not None:
        return Outcome(diverged["step"], total_steps, None, None, diverged["message"])
    return None
