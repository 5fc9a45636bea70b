"""Training of one run."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from flaxdigits.api.arguments import PathLike, Source
from flaxdigits.api.context import (
    check_before_data,
    check_devices,
    checked,
    load_data,
    make_console,
    new_run_folder,
)
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.reports.result import print_result, print_synthetic_data_notice
from flaxdigits.training import parallel, processes, provenance, runs
from flaxdigits.training.profile import Profile
from flaxdigits.training.progress import for_console
from flaxdigits.training.tensorboard import TensorBoard, is_installed
from flaxdigits.training.trackers import Tracker
from flaxdigits.training.trainer import Outcome


@pinned_settings()
@processes.report_failures
def train(
    config: ExperimentConfig, workdir: PathLike | None = None, *, data: Source = "auto",
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    trackers: Sequence[Tracker] = (), tensorboard: bool = True, profile: bool = False,
    coordinator: str | None = None, num_processes: int | None = None,
    process_id: int | None = None, connect_timeout: float = processes.CONNECT_TIMEOUT,
    console: Console | None = None,
) -> Outcome:
    """Trains an experiment to its end, or goes on with it, scores it and draws its report.

    Call it again with the same arguments and it goes on from the last checkpoint; of a finished
    run it gives the result. Ctrl-C, a notebook's stop button or SIGTERM pauses it.

    Args:
      config: from `flaxdigits.experiment`, or made by hand.
      workdir: the run folder; None is `runs/<experiment>`.
      data: `real` refuses characters that the framework draws, `drawn` wants them, `auto` falls
        back on them.
      raw_data_dir: folder of the raw files; None: that of the environment's FLAXDIGITS_RAW_DATA,
        else the network.
      data_dir: folder of prepared data; None: that of TFDS_DATA_DIR, else ~/tensorflow_datasets.
      trackers: called as the run advances, besides the console.
      tensorboard: write event files, if tensorboardX is installed.
      profile: trace some steps.
      coordinator: `host:port` of process 0, in a run of several processes.
      num_processes: how many there are.
      process_id: which of them this is, from 0.
      connect_timeout: seconds to wait for the other processes.
      console: of rich, created with `markup=False`; None for the terminal or the notebook.

    Returns:
      How it ended: `result` is what `result.json` holds, or None if the run was paused.

    Raises:
      FlaxdigitsError: if the config does not fit the data or the folder, a file cannot be read or
        written, or the loss stops being finite; what was saved before stays.
    """
    config = checked(config)
    if config.train.deterministic:
        parallel.ask_for_deterministic_kernels()
    processes.connect(coordinator, num_processes, process_id, connect_timeout)
    check_devices()
    console = console or make_console(quiet=not parallel.is_writer())
    all_trackers = default_trackers(console, tensorboard, profile, trackers)
    folder = new_run_folder(workdir, config)
    check_before_data(config, folder)
    dataset = load_data(config, data, raw_data_dir, data_dir)
    console.print(
        f"{config.experiment}: {dataset.name} ({dataset.source}), split {config.data.split}, "
        f"seed {config.seed}, on {provenance.device_name()}, in {folder}")
    print_synthetic_data_notice(console, dataset.source)
    outcome = runs.train(config, dataset, folder, all_trackers, write_report_or_warn)
    for tracker in all_trackers:
        if isinstance(tracker, Profile):
            console.print(f"profile: {tracker.trace}, for ui.perfetto.dev" if tracker.trace else
                          "no profile: there were no two calls of steps left to train")
    if outcome.result is None:
        _report_pause(console, outcome)
        return outcome
    print_result(console, outcome.result)
    print_synthetic_data_notice(console, dataset.source)
    files = [folder / name for name in ("result.json", "report.html")]
    console.print(f"complete at step {outcome.step}: "
                  + ", ".join(str(path) for path in files if path.exists()))
    return outcome


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Raises FlaxdigitsError if one of them is no tracker."""
    if not isinstance(trackers, list | tuple) or not all(
            isinstance(tracker, Tracker) for tracker in trackers):
        raise FlaxdigitsError("trackers must be several of subclasses of flaxdigits.training."
                              f"trackers.Tracker, as in [MyTracker()], got {trackers!r}")


def check_maker(trackers: Callable[[Path], Sequence[Tracker]] | None) -> None:
    """Raises FlaxdigitsError if this is no function that gives a run its trackers."""
    if trackers is not None and not callable(trackers):
        raise FlaxdigitsError("trackers must be a function of a run's folder, as in "
                              f"lambda workdir: [MyTracker()], got {trackers!r}")


def default_trackers(
    console: Console, tensorboard: bool, profile: bool, trackers: Sequence[Tracker]
) -> list[Tracker]:
    """The console, those that are asked for, and the user's own."""
    check_trackers(trackers)
    chosen: list[Tracker] = [for_console(console)]
    if tensorboard and is_installed():
        chosen.append(TensorBoard())
    if profile:
        chosen.append(Profile())
    return [*chosen, *trackers]


def _report_pause(console: Console, outcome: Outcome) -> None:
    done = f"saved at step {outcome.step} of {outcome.total_steps}"
    if outcome.signal is None:
        console.print(f"paused by train.stop_after, {done}; "
                      "the same command without it, or with a later one, resumes it")
        return
    name = signal.Signals(outcome.signal).name
    console.print(f"paused by {name}, {done}; the same command resumes it")
