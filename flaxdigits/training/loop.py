"""The training loop: prepare, resume, train, save, evaluate, report.

It trains a list of runs that differ only in their seed or fold; a single run is a list of one.
Each has the folder and the checkpoints that it would have by itself, so that whatever reads a run
does not depend on the others, and a run can be resumed alone or together with others. The runs
share one compiled program (`flaxdigits.training.program`). Those with the fewest steps are
advanced first, until all are at the same step; a run that has diverged is left out.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxdigits.config import ExperimentConfig, to_dict, validate
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training import provenance
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.parallel import all_reduce, check_same_everywhere, is_writer
from flaxdigits.training.precision import warn_of_precision_on_cpu
from flaxdigits.training.program import Program
from flaxdigits.training.run import Run
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.saved_run import SavedRun
from flaxdigits.training.trackers import Tracker, Trackers
from flaxdigits.training.weights import source_digest

# A compiled call takes about this long: short enough to stop or report soon, long enough that the
# return to Python costs nothing. A call makes several steps even if they are slow, because each
# call allocates its working memory anew (kaggle_cnn: 0.2 s, 0.5 s beside other programs).
SECONDS_PER_CALL = 0.5
STEPS_PER_CALL = 4


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the training of a run ended.

    Attributes:
      step: how many steps are done and saved.
      total_steps: of the whole run.
      result: what `result.json` holds, or None if the run was paused or diverged.
      signal: the signal that paused it, if one did.
      diverged: the error message if its loss stopped being finite.
    """

    step: int
    total_steps: int
    result: dict[str, Any] | None
    signal: int | None = None
    diverged: str | None = None


def train(
    config: ExperimentConfig, dataset: Dataset, workdir: Path,
    trackers: Sequence[Tracker] = (),
) -> Outcome:
    """Trains a run or resumes it, evaluates it and writes its report.

    Args:
      config: of the experiment.
      dataset: of `flaxdigits.data.dataset.load_dataset(config.data)`.
      workdir: the run folder; see `flaxdigits.training.run_folder`.
      trackers: called as the run advances; see `flaxdigits.training.trackers`.

    Raises:
      FlaxdigitsError: if the config does not fit the data or the folder, a file cannot be read or
        written, or the loss stops being finite; what was saved before stays.
    """
    workdir = Path(workdir)
    outcome = train_many({workdir: config}, dataset, lambda path: trackers)[workdir]
    if outcome.diverged is not None:
        raise FlaxdigitsError(outcome.diverged)
    return outcome


def train_many(
    configs: Mapping[Path, ExperimentConfig], dataset: Dataset,
    trackers: Callable[[Path], Sequence[Tracker]] = lambda workdir: (),
    on_end: Callable[[Path, Outcome], None] = lambda workdir, outcome: None,
) -> dict[Path, Outcome]:
    """Trains several runs with one compiled program; a run that diverges does not stop the others.

    Args:
      configs: by run folder; they may differ only in `seed` and `data.fold`.
      dataset: of all runs.
      trackers: returns the trackers of a run folder; of runs that are trained at once, only the
        first is reported.
      on_end: called with each run that has ended, diverged or was paused.

    Returns:
      The outcomes by run folder; after a signal, some runs may be missing.

    Raises:
      FlaxdigitsError: as `train` does, but not for a loss that is not finite; or if another
        process trains in one of the folders.
    """
    folders = {path: RunFolder(path, is_writer()) for path in configs}
    (path, config), *_ = configs.items()
    first = Run(validate(config), dataset)
    first.check_memory()
    warn_of_precision_on_cpu(config.train.precision)
    _check_together(list(configs.values()))
    check_same_everywhere("config", list(configs.values()))
    check_same_everywhere("data", dataset.identity())
    check_same_everywhere("run folder", [folder.contents() for folder in folders.values()])
    about = _about(config, dataset, all(folder.is_begun() for folder in folders.values()))
    _init_from(first, folders[path], about.get("init_from"))
    _start_folders(configs, folders, about)
    outcomes: dict[Path, Outcome] = {}

    def end(path: Path, outcome: Outcome) -> None:
        outcomes[path] = outcome
        on_end(path, outcome)

    waiting = []
    for path, folder in folders.items():
        ended = _ended(folder, first.total_steps)
        if ended is None:
            folder.check_writable()
            waiting.append(path)
        else:
            end(path, ended)
    program = Program(first, len(configs))
    with Interrupts() as interrupts:
        while waiting and not all_reduce(interrupts.received or 0, np.max):
            group, waiting = waiting[:program.size], waiting[program.size:]
            with contextlib.ExitStack() as stack:
                saved = []
                for path in group:
                    stack.enter_context(folders[path].locked())
                    folders[path].start(validate(configs[path]), about)
                    run = (first if configs[path] == first.config
                           else first.with_config(configs[path]))
                    if run is not first:
                        _init_from(run, folders[path], about.get("init_from"))
                    run_trackers = Trackers(
                        trackers(path) if path == group[0] and is_writer() else ())
                    saved.append(SavedRun(run, folders[path], run_trackers, interrupts))
                    stack.callback(saved[-1].close)
                    saved[-1].resume()
                    stack.enter_context(run_trackers.running(
                        run.config, path, run.step, run.total_steps))
                Loop(program, saved, interrupts).train()
                for path, saved_run in zip(group, saved, strict=True):
                    result = saved_run.result()
                    is_paused = result is None and saved_run.diverged is None
                    signal = saved_run.signal() or None if is_paused else None
                    end(path, Outcome(saved_run.run.step, saved_run.run.total_steps, result,
                                      signal, saved_run.diverged))
    return outcomes


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


def _init_from(run: Run, folder: RunFolder, digest: str | None) -> None:
    if run.config.train.init_from is not None and not folder.has_checkpoints():
        run.init_from_run(run.config.train.init_from, digest)


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


def _about(config: ExperimentConfig, dataset: Dataset, is_begun: bool) -> dict[str, Any]:
    """Returns what `config.json` holds beside the config, see `RunFolder.start`.

    The description of the user's own data takes a second or two, and is made for new runs alone.
    """
    about = {
        "data": dataset.identity() if is_begun else dataset.description(),
        "versions": provenance.versions(), "git_commit": provenance.git_commit(),
        "machine": provenance.machine()}
    digest = source_digest(config.train.init_from)
    return about if digest is None else about | {"init_from": digest}


def check_folders(configs: Mapping[Path, ExperimentConfig], dataset: Dataset) -> None:
    """Raises FlaxdigitsError if one of these folders holds another run; nothing is written."""
    digests = {config.train.init_from: source_digest(config.train.init_from)
               for config in configs.values()}
    for path, config in configs.items():
        _check_folders({path: config}, {path: RunFolder(path)}, {
            "data": dataset.identity(), "init_from": digests[config.train.init_from]})


def _check_folders(
    configs: Mapping[Path, ExperimentConfig], folders: Mapping[Path, RunFolder],
    about: Mapping[str, Any],
) -> None:
    for path, folder in folders.items():
        if folder.is_begun():
            folder.check_same(validate(configs[path]), about["data"], about.get("init_from"))


def _ended(folder: RunFolder, total_steps: int) -> Outcome | None:
    done, diverged = folder.result(), folder.diverged()
    if done is not None:
        return Outcome(done["steps"], total_steps, done)
    if diverged is not None:
        return Outcome(diverged["step"], total_steps, None, None, diverged["told"])
    return None


@dataclasses.dataclass(frozen=True)
class Loop:
    """Runs that are trained at once, and the signals that may stop them."""

    program: Program
    runs: Sequence[SavedRun]
    interrupts: Interrupts

    def train(self) -> None:
        """Trains all runs to the end, to `train.stop_after` or to a signal, and saves them."""
        trained = self._unfinished()
        if not trained:
            return
        seconds = self.program.seconds_compiling()
        for saved_run in trained:
            saved_run.run.clock(seconds_compiling=seconds / len(trained))
        rate = 1.0  # steps per second
        while (unfinished := self._unfinished()) and not self._signal():
            step = min(saved_run.run.step for saved_run in unfinished)
            active = [saved_run for saved_run in unfinished if saved_run.run.step == step]
            count = min(active[0].steps_to_next_event(),
                        all_reduce(max(STEPS_PER_CALL, int(SECONDS_PER_CALL * rate)), np.min))
            start = time.perf_counter()
            reports = self.program(
                [saved_run.run for saved_run in self.runs],
                [saved_run.order() for saved_run in self.runs],
                [count if saved_run in active else 0 for saved_run in self.runs])
            seconds = time.perf_counter() - start
            rate = count / seconds
            for saved_run, report in zip(self.runs, reports, strict=True):
                if saved_run in active:
                    saved_run.advance(count, report, rate, seconds / len(active))
        for saved_run in trained:
            saved_run.save()

    def _unfinished(self) -> list[SavedRun]:
        return [saved_run for saved_run in self.runs if saved_run.is_unfinished()]

    def _signal(self) -> int:
        return all_reduce(self.interrupts.received or 0, np.max)
