"""The one training loop: prepare, resume, train, save, score, report.

It trains a list of runs that differ in their seed or fold alone; one run is a list of one. Each
keeps the folder and checkpoints that it would have by itself, so that nothing that reads a run
knows of the others, and a run that was begun alone can go on among others. They share the compiled
program (`flaxdigits.training.program`) and are trained in step: those furthest behind until they
have caught up, while one that has diverged waits.
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

# A compiled call takes about this long: short enough to stop or report soon, long enough that
# the return to Python costs nothing. Of slow steps several, since a call fetches the memory that it
# works in anew (kaggle_cnn: a fifth of a second, half of one beside other programs).
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
      diverged: what to tell if its loss stopped being finite.
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
    """Trains a run to its end, or on from where it stopped, scores it and writes its report.

    Args:
      config: of the experiment.
      dataset: that `flaxdigits.data.dataset.load_dataset` gave for `config.data`.
      workdir: the run folder; see `flaxdigits.training.run_folder`.
      trackers: told how it goes; see `flaxdigits.training.trackers`.

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
    tell: Callable[[Path, Outcome], None] = lambda workdir, outcome: None,
) -> dict[Path, Outcome]:
    """`train` for several runs with one compiled program; one that diverges stops no other.

    Args:
      configs: by their run folders; all alike but for `seed` and `data.fold`.
      dataset: of them all.
      trackers: gives those of a run; of runs that are trained at once, only the first is told of.
      tell: called with each run that has ended, diverged or was paused.

    Returns:
      What `tell` was told; after a signal, some runs are not among them.

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
    check_same_everywhere("data", dataset.fingerprint)
    check_same_everywhere("run folder", [folder.contents() for folder in folders.values()])
    about = _about(config, dataset, all(folder.is_begun() for folder in folders.values()))
    _take_weights(first, folders[path], about.get("init_from"))
    _start_folders(configs, folders, about)
    outcomes: dict[Path, Outcome] = {}

    def end(path: Path, outcome: Outcome) -> None:
        outcomes[path] = outcome
        tell(path, outcome)

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
                        _take_weights(run, folders[path], about.get("init_from"))
                    told = Trackers(trackers(path) if path == group[0] and is_writer() else ())
                    saved.append(SavedRun(run, folders[path], told, interrupts))
                    stack.callback(saved[-1].close)
                    saved[-1].resume()
                    stack.enter_context(told.running(
                        run.config, path, run.step, run.total_steps))
                Loop(program, saved, interrupts).train()
                for path, one in zip(group, saved, strict=True):
                    result = one.result()
                    is_paused = result is None and one.diverged is None
                    end(path, Outcome(one.run.step, one.run.total_steps, result,
                                      one.signal() or None if is_paused else None, one.diverged))
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


def _take_weights(run: Run, folder: RunFolder, digest: str | None) -> None:
    if run.config.train.init_from is not None and not folder.has_checkpoints():
        run.take_weights(run.config.train.init_from, digest)


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
    """Runs that are trained at once, and what may stop them."""

    program: Program
    runs: Sequence[SavedRun]
    interrupts: Interrupts

    def train(self) -> None:
        """Trains all to their ends, to `train.stop_after` or to a signal, and saves them."""
        going = [one for one in self.runs if one.goes_on()]
        if not going:
            return
        seconds = self.program.seconds_compiling()
        for one in going:
            one.run.clock(seconds_compiling=seconds / len(going))
        rate = 1.0
        while not self._signal():
            behind = min((one.run.step for one in self.runs if one.goes_on()), default=None)
            if behind is None:
                break
            ready = [one for one in self.runs if one.goes_on() and one.run.step == behind]
            count = min(ready[0].steps_to_next_event(),
                        all_reduce(max(STEPS_PER_CALL, int(SECONDS_PER_CALL * rate)), np.min))
            start = time.perf_counter()
            reports = self.program(
                [one.run for one in self.runs], [one.order() for one in self.runs],
                [count if one in ready else 0 for one in self.runs])
            seconds = time.perf_counter() - start
            rate = count / seconds
            for one, report in zip(self.runs, reports, strict=True):
                if one in ready:
                    one.advance(count, report, rate, seconds / len(ready))
        for one in going:
            one.save()

    def _signal(self) -> int:
        return all_reduce(self.interrupts.received or 0, np.max)
