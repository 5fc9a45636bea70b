"""What a person sees while a run goes on: a bar, or plain lines where there can be none."""

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flaxdigits.config import ExperimentConfig
from flaxdigits.training.trackers import Tracker

SECONDS_BETWEEN_LINES = 10.0


class Bar(Tracker):
    """A bar with loss, accuracy, steps/s and time left; a line stays for every scored epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"), TimeRemainingColumn(), console=console)

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Shows the bar."""
        self._task = self._bar.add_task("training", total=total_steps, completed=step, figures="")
        self._bar.start()

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Moves it."""
        self._bar.update(
            self._task, completed=step,
            figures=_figures(rate, loss, accuracy))

    def row(self, row: dict[str, Any]) -> None:
        """Leaves a line above the bar where a validation was scored."""
        if "validation_accuracy" in row:
            self._bar.console.print(_line(row), highlight=False)

    def stop(self) -> None:
        """Leaves the bar as it is."""
        self._bar.stop()


class Lines(Tracker):
    """A line for every validation, the end, and in between every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total, self._printed = 0, 0.0

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Remembers the total."""
        self._total, self._printed = total_steps, time.monotonic()

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Prints a line, with the time left, if it is due."""
        if time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._print(f"step {step}/{self._total}  {_figures(rate, loss, accuracy)}  "
                        f"{(self._total - step) / rate:.0f} s left")

    def row(self, row: dict[str, Any]) -> None:
        """Prints the line of a validation or of the end."""
        if row["step"] == self._total or "validation_accuracy" in row:
            self._print(_line(row, self._total))

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        self._console.print(line, highlight=False, soft_wrap=True)


def for_console(console: Console) -> Tracker:
    """A bar on a terminal or in a notebook, lines elsewhere."""
    if console.file is sys.stdout and Console().is_jupyter and not console.quiet:
        from flaxdigits.training.notebook import NotebookBar  # IPython is there in notebooks alone

        return NotebookBar()
    return Bar(console) if console.is_terminal else Lines(console)


def _figures(rate: float, loss: float, accuracy: float) -> str:
    return f"loss {loss:.4f}  accuracy {accuracy:.4f}  {rate:.1f} steps/s"


def _line(row: dict[str, Any], total: int | None = None) -> str:
    step = f"step {row['step']}" + (f"/{total}" if total else "")
    figures = f"loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:.4f}"
    if "validation_accuracy" in row:
        figures += (f"  validation loss {row['validation_loss']:.4f}"
                    f"  accuracy {row['validation_accuracy']:.4f}")
    return f"{step}  epoch {row['epoch']}  {figures}"
