"""Traces some training steps for TensorBoard's profiler or ui.perfetto.dev."""

from pathlib import Path

import jax

from flaxdigits.config import ExperimentConfig
from flaxdigits.training.trackers import Tracker


class Profile(Tracker):
    """Traces the second compiled call of train steps, so that compilation is not included.

    The trace is written to `<workdir>/profile/plugins/profile/<time>/`: `*.xplane.pb` for
    TensorBoard, and `perfetto_trace.json.gz` for Perfetto.

    Attributes:
      trace: the path of `perfetto_trace.json.gz`; None until it is written.
    """

    def __init__(self) -> None:
        self.trace: Path | None = None

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Sets the folder of the trace."""
        self._folder = workdir / "profile"
        self._state = "waiting"

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Starts the trace after the first call of train steps, and stops it after the second."""
        if self._state == "waiting":
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._state = "tracing"
        elif self._state == "tracing":
            self._end()

    def stop(self) -> None:
        """Stops the trace if the run ends before its second call of train steps."""
        if self._state == "tracing":
            self._end()

    def _end(self) -> None:
        self._state = "done"
        jax.profiler.stop_trace()
        self.trace = max(self._folder.rglob("perfetto_trace.json.gz"))
