"""A trace of some training steps, for TensorBoard's profiler or ui.perfetto.dev."""

from pathlib import Path

import jax

from flaxdigits.config import ExperimentConfig
from flaxdigits.training.trackers import Tracker


class Profile(Tracker):
    """Traces what happens between the first compiled call of steps and the second.

    By then everything is compiled and warm. The trace lies in
    `<workdir>/profile/plugins/profile/<time>/`: `*.xplane.pb` for TensorBoard,
    `perfetto_trace.json.gz` for Perfetto.

    Attributes:
      trace: the latter, once it is written.
    """

    def __init__(self) -> None:
        self.trace: Path | None = None

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Remembers where the trace goes."""
        self._folder = workdir / "profile"
        self._state = "waiting"

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Starts tracing after the first steps, and stops after the next ones."""
        if self._state == "waiting":
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._state = "tracing"
        elif self._state == "tracing":
            self._end()

    def stop(self) -> None:
        """Ends a trace that no further steps have ended."""
        if self._state == "tracing":
            self._end()

    def _end(self) -> None:
        self._state = "done"
        jax.profiler.stop_trace()
        self.trace = max(self._folder.rglob("perfetto_trace.json.gz"))
