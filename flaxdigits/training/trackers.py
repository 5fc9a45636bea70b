"""Trackers: callbacks that report a run to the terminal, TensorBoard or another service."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig

_log = logging.getLogger(__name__)


class Tracker:
    """Base class of the trackers; subclass it and override the methods that you need.

    The methods are callbacks: `start`, then `advance` and `row` as the run proceeds, `finish` if it
    is complete, and `stop`. All are called in process 0, between compiled calls. A tracker
    that raises an exception is disabled with a warning, and the run continues.
    """

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Called when a run starts or resumes after `step` of `total_steps` steps."""

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Called after each compiled call of train steps, about twice a second.

        Args:
          step: the number of steps since the start of the run.
          rate: the number of train steps per second.
          loss: the mean training loss over the steps of the last call.
          accuracy: the mean training accuracy over the steps of the last call.
        """

    def row(self, row: dict[str, Any]) -> None:
        """Called with each row of metrics that is appended to `metrics.jsonl`.

        Args:
          row: `step`, `epoch`, the training metrics, and those of the validation split if it has
            been evaluated at this step.
        """

    def finish(self, result: dict[str, Any], figures: dict[str, Path]) -> None:
        """Called when the run is complete.

        Args:
          result: the content of `result.json`.
          figures: the paths of the PNG files by name; empty if they could not be drawn.
        """

    def stop(self) -> None:
        """Called last, whether the run ended normally or with an error."""


class Trackers:
    """Forwards each callback to several trackers.

    Args:
      trackers: called in this order.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    @contextlib.contextmanager
    def running(self, *start: Any) -> Iterator[None]:
        """Calls `start` with these arguments before the block, and `stop` after it."""
        self._notify("start", *start)
        try:
            yield
        finally:
            self._notify("stop")

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Calls `Tracker.advance` of all trackers."""
        self._notify("advance", step, rate, loss, accuracy)

    def row(self, row: dict[str, Any]) -> None:
        """Calls `Tracker.row` of all trackers."""
        self._notify("row", row)

    def finish(self, result: dict[str, Any], figures: dict[str, Path]) -> None:
        """Calls `Tracker.finish` of all trackers."""
        self._notify("finish", result, figures)

    def _notify(self, method: str, *arguments: Any) -> None:
        """Calls a method of every tracker; a tracker that raises is removed."""
        for tracker in list(self._trackers):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # a run must not fail because a service is not available
                self._trackers.remove(tracker)
                _log.warning(
                    "%s.%s failed, and the tracker is disabled: %s: %s", type(tracker).__name__,
                    method, type(error).__name__, " ".join(str(error).split()))
