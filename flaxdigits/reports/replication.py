"""The replication report: claimed, reproduced and held-out accuracies.

The report is a table, as Markdown, as JSON and for a terminal, with an explanation of each row.
"""

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.plurals import counted
from flaxdigits.reports.markdown import table_line
from flaxdigits.studies.collection import RECORDS_FOLDER, Collection, ProtocolRuns
from flaxdigits.studies.replication import (
    HELD_OUT_METRIC,
    HELD_OUT_PROTOCOL,
    ORIGINAL_PROTOCOL,
    Claim,
    System,
)
from flaxdigits.studies.statistics import (
    Estimate,
    estimate,
    prediction_interval,
    unpaired_difference,
)

HEADER = ("experiment", "claimed", "reproduced under the original protocol", "held out")
BEGIN, END = "<!-- replication: begin -->", "<!-- replication: end -->"
SUMMARY_BEGIN = "<!-- replication summary: begin -->"
SUMMARY_END = "<!-- replication summary: end -->"
NOTE = ("Accuracy in percent after the last epoch, mean ± standard deviation over n seeds. "
        "A 95 % prediction interval is where a further run would lie, by Student's t.")
METRIC_LABELS = {"train_accuracy_running": "running training", "train_accuracy": "training",
                 "validation_accuracy": "validation", "test_accuracy": "test"}


@dataclasses.dataclass(frozen=True)
class ClaimRow:
    """A claim and the runs that it is compared with.

    Attributes:
      system: the system that the claim is about.
      claim: the claim.
      original: the runs of the original protocol.
      held_out: the runs of the held-out protocol; the same runs if the protocols do not differ.
    """

    system: System
    claim: Claim
    original: ProtocolRuns
    held_out: ProtocolRuns

    @property
    def label(self) -> str:
        """The name of the claimed accuracy."""
        return self.claim.about or METRIC_LABELS[self.claim.metric]

    def reproduced(self) -> Estimate | None:
        """Returns the estimate of the claimed metric; None if there are no runs."""
        return estimate_of(self.original, self.claim.metric)

    def cells(self) -> tuple[str, str, str, str]:
        """Returns the cells of the row."""
        return (self.system.name, f"{self.label} {100 * self.claim.accuracy:.2f}",
                _cell(self.original, (self.claim.metric, *self.claim.extra_metrics)),
                _cell(self.held_out, (HELD_OUT_METRIC,)))

    def explanation(self) -> str:
        """Returns sentences on the difference from the claim, and between the two protocols."""
        reproduced = self.reproduced()
        if reproduced is None:
            return f"Not run yet. {self.claim.why}"
        difference = 100 * (reproduced.mean - self.claim.accuracy)
        text = (f"{abs(difference):.2f} points {'above' if difference > 0 else 'below'} the claim"
                if abs(difference) >= 0.005 else "Equal to the claim within 0.01 points")
        interval = prediction_interval(reproduced)
        if self.original.partial:
            text += f", after {self.original.partial}, which is not conclusive"
        elif interval is None:
            text += ", with one seed"
        else:
            low, high = interval
            relation = "inside" if low <= self.claim.accuracy <= high else "outside"
            text += (f"; the claim is {relation} the prediction interval, "
                     f"{100 * max(0, low):.2f} to {100 * min(1, high):.2f}")
        return " ".join([f"{text}.", self.claim.why, *self._protocol_difference()])

    def _protocol_difference(self) -> Iterator[str]:
        """Yields a sentence on the held-out protocol, if it differs and both are complete."""
        if self.held_out is self.original or self.original.partial or self.held_out.partial:
            return
        original = list(self.original.values(self.claim.metric).values())
        held_out = list(self.held_out.values(HELD_OUT_METRIC).values())
        if not original or not held_out:
            return
        difference = unpaired_difference(held_out, original)
        interval = "" if difference.low is None or difference.high is None else (
            f" (95 % interval of the difference {100 * difference.low:+.2f} to "
            f"{100 * difference.high:+.2f})")
        yield (f"With held-out images ({' '.join(self.system.replication.held_out)}) the accuracy "
               f"is {100 * abs(difference.mean):.2f} points "
               f"{'lower' if difference.mean < 0 else 'higher'}"
               f"{interval}.")


@dataclasses.dataclass(frozen=True)
class ReplicationReport:
    """The replication report.

    Attributes:
      systems: the systems in the order of the table.
      collection: the runs of the systems.
      command: the command that creates the report.
    """

    systems: Sequence[System]
    collection: Collection
    command: str

    def rows(self) -> list[ClaimRow]:
        """Returns a row for each claim."""
        rows = []
        for system in self.systems:
            runs = self.collection.runs[system.name]
            original = runs[ORIGINAL_PROTOCOL]
            held_out = runs.get(HELD_OUT_PROTOCOL, original)
            rows += [ClaimRow(system, claim, original, held_out)
                     for claim in system.replication.claims]
        return rows

    def files(self) -> dict[str, bytes]:
        """Returns the Markdown and JSON files by name, and the record of each run that counts."""
        content = json.dumps(self.json(), indent=2, ensure_ascii=False) + "\n"
        return {
            "replication.md": f"# {self.title()}\n\n{self.block()}\n".encode(),
            "replication.json": content.encode(),
            **{f"{RECORDS_FOLDER}/{name}": record.file()
               for name, record in self.collection.records()}}

    def title(self) -> str:
        """Returns the title of the report."""
        system = f": {self.systems[0].name}" if len(self.systems) == 1 else ""
        return f"Claimed, reproduced, held out{system}"

    def terminal(self) -> Table:
        """Returns the table for a terminal."""
        table = Table(*HEADER, title=Text(self.title(), "table.title"))
        for row in self.rows():
            table.add_row(*map(Text, row.cells()))
        return table

    def block(self) -> str:
        """Returns the table in Markdown, followed by notes and an explanation of each row."""
        lines = [*_table_lines(self.rows()), "", _wrap(f"{NOTE} {self.hardware()}"),
                 f"Created by `{self.command}`.", ""]
        for row in self.rows():
            lines.append(_wrap(f"- `{row.system.name}`, {row.label}: {row.explanation()}", "  "))
        return "\n".join(lines)

    def summary(self) -> str:
        """Returns a short table in Markdown, with the first claim of each system."""
        rows: dict[str, ClaimRow] = {}
        for row in self.rows():
            rows.setdefault(row.system.name, row)
        return "\n".join(_table_lines(rows.values()))

    def hardware(self) -> str:
        """Returns the machines and JAX versions of the runs."""
        counts: dict[str, int] = {}
        for _, record in self.collection.records():
            jax = record.values.get("versions", {}).get("jax", "unknown")
            name = f"{record.machine}, JAX {jax}"
            counts[name] = counts.get(name, 0) + 1
        return " ".join(f"{counted(count, 'run')} on {name}." for name, count in
                        counts.items()) or "No runs."

    def json(self) -> dict[str, object]:
        """Returns the report as JSON values: unrounded fractions, seeds, and skipped runs."""
        def describe(runs: ProtocolRuns, metrics: Sequence[str]) -> dict[str, object]:
            return {
                "partial": runs.partial, "seeds": sorted(runs.records),
                "diverged": list(runs.diverged),
                "metrics": {metric: value and dataclasses.asdict(value) for metric, value in
                            ((metric, estimate_of(runs, metric)) for metric in metrics)}}

        return {
            "command": self.command, "hardware": self.hardware(),
            "rows": [{
                "experiment": row.system.name, "original": row.system.replication.original,
                "claimed": {"metric": row.claim.metric, "accuracy": row.claim.accuracy},
                "reproduced": describe(
                    row.original, (row.claim.metric, *row.claim.extra_metrics)),
                "held_out": {"overrides": list(row.system.replication.held_out),
                             **describe(row.held_out, (HELD_OUT_METRIC,))},
                "explanation": row.explanation()} for row in self.rows()],
            "skipped": self.collection.skipped}


def _table_lines(rows: Iterable[ClaimRow]) -> list[str]:
    """Returns the lines of a table in Markdown with these rows."""
    return [table_line(HEADER), "| --- | --- | --- | --- |",
            *(table_line((f"`{name}`", *rest)) for name, *rest in (row.cells() for row in rows))]


def put_between_markers(text: str, block: str, summary: str) -> str:
    """Replaces the text between the markers of a file.

    Args:
      text: the text of the file, which has one of two pairs of markers, or both.
      block: the new text between `BEGIN` and `END`, as `ReplicationReport.block` returns it.
      summary: the new text between `SUMMARY_BEGIN` and `SUMMARY_END`, as
        `ReplicationReport.summary` returns it.

    Returns:
      The new text of the file.

    Raises:
      FlaxdigitsError: if the text has no markers; or if it has a marker of a pair, but not exactly
        one begin marker followed by exactly one end marker.
    """
    pairs = ((BEGIN, END, block), (SUMMARY_BEGIN, SUMMARY_END, summary))
    if not any(marker in text for pair in pairs for marker in pair[:2]):
        raise FlaxdigitsError(
            f"expected one line {BEGIN} and after it one line {END}, for the whole report, or "
            f"{SUMMARY_BEGIN} and {SUMMARY_END}, for a short table")
    for begin, end, content in pairs:
        if begin not in text and end not in text:
            continue
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise FlaxdigitsError(f"expected one line {begin} and after it one line {end}")
        before, after = text.split(begin)[0], text.split(end)[1]
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def estimate_of(runs: ProtocolRuns, metric: str) -> Estimate | None:
    """Returns the mean of a metric over the seeds; None if no seed has it."""
    values = list(runs.values(metric).values())
    return estimate(values) if values else None


def format_estimate(value: Estimate) -> str:
    """Formats an estimate in percent, such as `98.29 ± 0.09`."""
    return f"{100 * value.mean:.2f}" + ("" if value.sd is None else f" ± {100 * value.sd:.2f}")


def _cell(runs: ProtocolRuns, metrics: Sequence[str]) -> str:
    estimates = [(metric, estimate_of(runs, metric)) for metric in metrics]
    text = ", ".join(f"{METRIC_LABELS[metric]} {format_estimate(value)}"
                     for metric, value in estimates if value)
    if not text:
        return "not run" if not runs.diverged else f"all {len(runs.diverged)} seeds diverged"
    notes = [counted(len(runs.records), "seed")]
    if runs.partial:
        notes.insert(0, f"partial: {runs.partial}")
    if runs.diverged:
        notes.append(f"{len(runs.diverged)} diverged")
    return f"{text} ({', '.join(notes)})"


def _wrap(text: str, indent: str = "") -> str:
    return "\n".join(textwrap.wrap(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))
