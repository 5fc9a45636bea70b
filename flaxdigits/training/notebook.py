"""Shows the progress of a run in a notebook: a progress bar and a table of metrics."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from IPython.display import display

from flaxdigits.config import ExperimentConfig
from flaxdigits.training.trackers import Tracker

COLUMNS = {"step": "{:,}", "epoch": "{}", "train_loss": "{:.4f}", "train_accuracy": "{:.2%}",
           "validation_loss": "{:.4f}", "validation_accuracy": "{:.2%}"}
RIGHT = "text-align:right;padding:0.1em 1em 0.1em 0"


class NotebookBar(Tracker):
    """Shows a progress bar, the remaining time, and a row for every evaluation.

    All are in one output, which is updated in place. It is plain HTML without widgets, so that a
    saved notebook still shows the last state of the run.
    """

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Shows the progress bar."""
        self._step, self._total, self._status = step, total_steps, ""
        self._rows: list[list[str]] = []
        self._handle = display(self._content(), raw=True, display_id=True)

    def advance(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """Updates the progress bar and the metrics beside it."""
        self._step = step
        self._status = (f"loss {loss:.4f}, accuracy {accuracy:.2%}, {rate:,.1f} steps/s, "
                        f"{(self._total - step) / rate:,.0f} s left")
        self._handle.update(self._content(), raw=True)

    def row(self, row: dict[str, Any]) -> None:
        """Adds a row to the table if the row has validation metrics or is the last one."""
        if row["step"] == self._total or "validation_accuracy" in row:
            self._rows.append([form.format(row[name]) if name in row else ""
                               for name, form in COLUMNS.items()])
            self._handle.update(self._content(), raw=True)

    def finish(self, result: dict[str, Any], figures: dict[str, Path]) -> None:
        """Shows how long training took."""
        self._status = (f"{result['seconds_training']:,.1f} s of training, "
                        f"{result['steps_per_second']:,.1f} steps/s")
        self._handle.update(self._content(), raw=True)

    def _content(self) -> dict[str, str]:
        """Returns the output by MIME type."""
        text = f"{self._step:,} of {self._total:,} steps"
        if self._status:
            text += f": {self._status}"
        names = [name.replace("_", " ") for name in COLUMNS]
        used = [column for column in range(len(names)) if any(row[column] for row in self._rows)]
        rows = [[row[column] for column in used] for row in [names, *self._rows]]
        html = (f"<div><progress value={self._step} max={self._total} style='width:20em'>"
                f"</progress> {escape(text)}</div>")
        if self._rows:
            html += f"<table>{_row('th', rows[0])}{''.join(_row('td', row) for row in rows[1:])}"
            html += "</table>"
        return {"text/html": html,
                "text/plain": "\n".join([text, *map("  ".join, rows if self._rows else [])])}


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag} style={RIGHT!r}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
