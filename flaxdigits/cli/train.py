"""--mode=train: trains an experiment, or goes on with it."""

import signal

from rich.console import Console

from flaxdigits.cli.context import check_before_data, load_data, run_folder_path, warn_of_unused_gpu
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.experiments import load_trackers
from flaxdigits.reports.result import tell_of_drawn_data, tell_result
from flaxdigits.training import parallel, provenance
from flaxdigits.training.loop import Outcome, train
from flaxdigits.training.profile import Profile
from flaxdigits.training.progress import for_console
from flaxdigits.training.tensorboard import TensorBoard, is_installed
from flaxdigits.training.trackers import Tracker


def run(options: Options, config: ExperimentConfig) -> int:
    """Returns the exit status: 0, or 128 + the number of the signal that paused the run."""
    if config.train.deterministic:
        parallel.ask_for_deterministic_kernels()
    parallel.connect(options.coordinator, options.num_processes, options.process_id)
    console = Console(quiet=not parallel.is_writer(), highlight=False, soft_wrap=True)
    warn_of_unused_gpu()
    workdir = run_folder_path(options, config)
    trackers = trackers_of(options, console)
    check_before_data(config, workdir)
    dataset = load_data(config, options)
    console.print(
        f"{config.experiment}: {dataset.name} ({dataset.source}), split {config.data.split}, "
        f"seed {config.seed}, on {provenance.device_name()}, in {workdir}")
    tell_of_drawn_data(console, dataset.source)
    outcome = train(config, dataset, workdir, trackers)
    for tracker in trackers:
        if isinstance(tracker, Profile):
            console.print(f"profile: {tracker.trace}, for ui.perfetto.dev" if tracker.trace else
                          "no profile: there were no two calls of steps left to train")
    if outcome.result is None:
        return _tell_pause(console, outcome)
    tell_result(console, outcome.result)
    tell_of_drawn_data(console, dataset.source)
    told = [workdir / name for name in ("result.json", "report.html")]
    console.print(f"complete at step {outcome.step}: "
                  + ", ".join(str(path) for path in told if path.exists()))
    return 0


def trackers_of(options: Options, console: Console) -> list[Tracker]:
    """Whom the options want to be told of a run."""
    trackers = [for_console(console)]
    if options.tensorboard and is_installed():
        trackers.append(TensorBoard())
    if options.profile:
        trackers.append(Profile())
    if options.experiment is not None:
        trackers += load_trackers(options.experiment)
    return trackers


def _tell_pause(console: Console, outcome: Outcome) -> int:
    done = f"saved at step {outcome.step} of {outcome.total_steps}"
    if outcome.signal is None:
        console.print(f"paused by train.stop_after, {done}; "
                      "the same command without it, or with a later one, goes on from there")
        return 0
    name = signal.Signals(outcome.signal).name
    console.print(f"paused by {name}, {done}; the same command goes on from there")
    return 128 + outcome.signal
