"""The trackers of runs: those of flaxdigits, and those that a user passes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.profile import Profile
from flaxdigits.training.progress import console_tracker
from flaxdigits.training.tensorboard import TensorBoard, is_installed
from flaxdigits.training.trackers import Tracker

TrackerFactory = Callable[[Path], Sequence[Tracker]]


def all_trackers(
    console: Console, tensorboard: bool, profile: bool, trackers: Sequence[Tracker]
) -> list[Tracker]:
    """Returns the tracker of the console, the optional trackers, and the custom ones.

    Args:
      console: the console to print on.
      tensorboard: whether to write TensorBoard event files, if tensorboardX is installed.
      profile: whether to trace some train steps.
      trackers: the custom trackers.

    Raises:
      FlaxdigitsError: if `trackers` is not a list or tuple of trackers.
    """
    if not isinstance(trackers, list | tuple) or not all(
            isinstance(tracker, Tracker) for tracker in trackers):
        raise FlaxdigitsError("trackers must be a list of instances of subclasses of "
                              "flaxdigits.Tracker, as in [MyTracker()], got "
                              f"{trackers!r}")
    chosen: list[Tracker] = [console_tracker(console)]
    if tensorboard and is_installed():
        chosen.append(TensorBoard())
    if profile:
        chosen.append(Profile())
    return [*chosen, *trackers]


def trackers_by_run(
    console: Console, tensorboard: bool, profile: bool, trackers: TrackerFactory | None,
    name_of: Callable[[Path], str],
) -> TrackerFactory:
    """Returns a function that prints the name of a run, and returns its trackers.

    Args:
      console: see `all_trackers`.
      tensorboard: see `all_trackers`.
      profile: see `all_trackers`.
      trackers: returns the custom trackers of a run folder; None: there are none.
      name_of: returns the name of the run in a folder, such as `seed 3`.

    Raises:
      FlaxdigitsError: if `trackers` is not a function.
    """
    if trackers is not None and not callable(trackers):
        raise FlaxdigitsError("trackers must be a function that takes the run folder and returns a "
                              "list of trackers, such as lambda workdir: [MyTracker()], got "
                              f"{trackers!r}")

    def trackers_of(workdir: Path) -> list[Tracker]:
        console.print(name_of(workdir))
        custom = () if trackers is None else trackers(workdir)
        return all_trackers(console, tensorboard, profile, custom)

    return trackers_of
