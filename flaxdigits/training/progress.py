"""Shows the progress of a run: a bar in a terminal, plain lines elsewhere."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as LiveBar
from rich.status import Status

from flaxdigits.config import ExperimentConfig
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.training.trackers import Tracker

SECONDS_BETWEEN_LINES = 5.0
SECONDS_OF_SILENCE = 2.0  # after which a stage prints its first line


class Bar(Tracker):
    """Shows a bar with loss, accuracy, steps/s and time left.

    Above the bar it prints a permanent line for every validation.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = LiveBar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"), TimeRemainingColumn(), console=console)

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Shows the bar."""
        self._task = self._bar.add_task("training", total=total_steps, completed=step, metrics="")
        self._bar.start()

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Updates the bar."""
        self._bar.update(
            self._task, completed=step,
            metrics=_metrics(rate, loss, accuracy))

    def row(self, row: dict[str, Any]) -> None:
        """Prints a line above the bar if the row has validation metrics."""
        if "validation_accuracy" in row:
            self._bar.console.print(_line(row), highlight=False)

    def stop(self) -> None:
        """Stops updating the bar, which stays."""
        self._bar.stop()


class Lines(Tracker):
    """Prints a line for every validation, at the end, and every few seconds in between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total, self._last_printed = 0, 0.0

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Stores the number of steps and the time."""
        self._total, self._last_printed = total_steps, time.monotonic()

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Prints a line, with the time left, if it is due."""
        if time.monotonic() - self._last_printed >= SECONDS_BETWEEN_LINES:
            self._print(f"step {step}/{self._total}  {_metrics(rate, loss, accuracy)}  "
                        f"{(self._total - step) / rate:.0f} s left")

    def row(self, row: dict[str, Any]) -> None:
        """Prints the line of a validation or of the end."""
        if row["step"] == self._total or "validation_accuracy" in row:
            self._print(_line(row, self._total))

    def _print(self, line: str) -> None:
        self._last_printed = time.monotonic()
        self._console.print(line, highlight=False, soft_wrap=True)


class ConsoleProgress(Progress):
    """Prints the current stage: in a terminal as a live line, elsewhere as occasional plain lines.

    A stage that ends within two seconds prints no plain line.

    Args:
      console: the console to print on.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stages: list[_Stage] = []  # the last one is the innermost, and is printed

    @contextlib.contextmanager
    def stage(self, text: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Shows a stage; see `Progress.stage`."""
        stage = _Stage(text, total)
        self._stages.append(stage)
        ended = threading.Event()
        show = self._show_live if self._console.is_terminal else self._print_lines
        thread = threading.Thread(target=show, args=(stage, ended), daemon=True)
        thread.start()
        try:
            yield stage.advance
        finally:
            ended.set()
            thread.join()  # so that nothing is printed after the stage
            self._stages.remove(stage)

    def _print_lines(self, stage: "_Stage", ended: threading.Event) -> None:
        seconds = SECONDS_OF_SILENCE
        while not ended.wait(seconds):
            if stage is self._stages[-1]:
                self._console.print(str(stage), highlight=False, soft_wrap=True)
            seconds = SECONDS_BETWEEN_LINES

    def _show_live(self, stage: "_Stage", ended: threading.Event) -> None:
        if ended.wait(0.2):  # a stage that ends at once is not shown
            return
        with Status(str(stage), console=self._console) as status:
            while not ended.wait(0.2):
                status.update(str(stage))


class _Stage:
    """The text, the number of items and the start of a stage."""

    def __init__(self, text: str, total: int | None) -> None:
        self._text, self._total, self._done = text, total, 0
        self._start = time.monotonic()

    def advance(self, done: int) -> None:
        """Sets the number of items that are done."""
        self._done = done

    def __str__(self) -> str:
        if self._total is not None:
            return f"{self._text} {self._done:,}/{self._total:,}"
        return f"{self._text} ({time.monotonic() - self._start:.0f} s)"


class TrainingStage(Tracker):
    """Shows the training of a run as a stage, for runs whose metrics are not printed.

    Args:
      progress: shows the stage.
      text: the name of the run.
    """

    def __init__(self, progress: Progress, text: str) -> None:
        self._progress, self._text = progress, text
        self._stack = contextlib.ExitStack()

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Begins the stage."""
        self._advance = self._stack.enter_context(
            self._progress.stage(f"{self._text}: step", total_steps))
        self._advance(step)

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Updates the stage."""
        self._advance(step)

    def stop(self) -> None:
        """Ends the stage."""
        self._stack.close()


def console_progress(console: Console) -> Progress:
    """Returns an object that prints stages on a console.

    If the console is quiet, or `FLAXDIGITS_PROGRESS=off` is set, it prints nothing.
    """
    is_off = console.quiet or os.environ.get("FLAXDIGITS_PROGRESS") == "off"
    return NO_PROGRESS if is_off else ConsoleProgress(console)


def console_tracker(console: Console) -> Tracker:
    """Returns a progress bar for a terminal or a notebook, and a printer of lines elsewhere."""
    if console.file is sys.stdout and Console().is_jupyter and not console.quiet:
        from flaxdigits.training.notebook import NotebookBar  # needs IPython

        return NotebookBar()
    return Bar(console) if console.is_terminal else Lines(console)


def _metrics(rate: float, loss: float, accuracy: float) -> str:
    return f"loss {loss:.4f}  accuracy {accuracy:.4f}  {rate:.1f} steps/s"


def _line(row: dict[str, Any], total: int | None = None) -> str:
    """Returns the line that is printed for a row of `metrics.jsonl`."""
    step = f"step {row['step']}" + (f"/{total}" if total else "")
    metrics = f"loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:.4f}"
    if "validation_accuracy" in row:
        metrics += (f"  validation loss {row['validation_loss']:.4f}"
                    f"  accuracy {row['validation_accuracy']:.4f}")
    return f"{step}  epoch {row['epoch']}  {metrics}"
