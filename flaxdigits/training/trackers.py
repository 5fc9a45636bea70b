"""Who is told how a run goes: the terminal, TensorBoard, a service of your own."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.config import ExperimentConfig

_log = logging.getLogger(__name__)


class Tracker:
    """Told how a run goes; subclass it and override what you want to hear.

    All methods are called in one process, between compiled calls. A tracker that raises is left
    out from then on, with a note, and the run goes on.
    """

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """A run starts, or goes on, after `step` of `total_steps`: later steps are new."""

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """`step` steps are done, at `rate` a second; running figures of the latest ones."""

    def row(self, row: dict[str, Any]) -> None:
        """A line was written to metrics.jsonl."""

    def finish(self, result: dict[str, Any], figures: dict[str, Path]) -> None:
        """The run is complete: its result, and PNG files by name (none if they failed)."""

    def stop(self) -> None:
        """Nothing more will come, however the run ended."""


class Trackers:
    """Several trackers as one.

    Args:
      trackers: told in this order.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    @contextlib.contextmanager
    def running(self, *start: Any) -> Iterator[None]:
        """Tells all of the start, with the arguments of `Tracker.start`, and of the end."""
        self._tell("start", *start)
        try:
            yield
        finally:
            self._tell("stop")

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Tells all."""
        self._tell("advance", step, rate, loss, accuracy)

    def row(self, row: dict[str, Any]) -> None:
        """Tells all."""
        self._tell("row", row)

    def finish(self, result: dict[str, Any], figures: dict[str, Path]) -> None:
        """Tells all."""
        self._tell("finish", result, figures)

    def _tell(self, method: str, *arguments: Any) -> None:
        for tracker in list(self._trackers):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # a service that is down is no reason to lose a run
                self._trackers.remove(tracker)
                _log.warning(
                    "%s.%s failed and is told no more: %s: %s", type(tracker).__name__, method,
                    type(error).__name__, " ".join(str(error).split()))
