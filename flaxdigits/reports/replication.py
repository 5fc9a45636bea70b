"""What the originals claimed, what their replications come to, and what is held out.

The table as Markdown, JSON and for a terminal, each difference explained in a sentence.
"""

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.markdown import table_line
from flaxdigits.studies.collection import KEPT, Collection, Runs
from flaxdigits.studies.replication import HELD_OUT, HELD_OUT_METRIC, ORIGINAL, Claim, System
from flaxdigits.studies.statistics import (
    Estimate,
    estimate,
    prediction_interval,
    unpaired_difference,
)

HEADER = ("experiment", "claimed", "reproduced, the original's protocol", "held out")
BEGIN, END = "<!-- replication: begin -->", "<!-- replication: end -->"
NOTE = ("Accuracy in per cent after the last epoch, mean ± standard deviation over n seeds. "
        "Scatter: where 95 of 100 further single runs would lie, by Student's t.")
METRIC_LABELS = {"train_accuracy_running": "running training", "train_accuracy": "training",
          "validation_accuracy": "validation", "test_accuracy": "test"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One claim beside the runs that it is compared with.

    Attributes:
      system: whose claim.
      claim: the claim.
      own: runs by the original's protocol.
      held_out: runs by the honest protocol, which are the same if the original's is one.
    """

    system: System
    claim: Claim
    own: Runs
    held_out: Runs

    def reproduced(self) -> Estimate | None:
        """What is to be compared with the claim."""
        return estimate_of(self.own, self.claim.figure)

    def cells(self) -> tuple[str, str, str, str]:
        """The row of the table."""
        about = self.claim.about or METRIC_LABELS[self.claim.figure]
        return (self.system.name, f"{about} {100 * self.claim.accuracy:.2f}",
                _cell(self.own, (self.claim.figure, *self.claim.beside)),
                _cell(self.held_out, (HELD_OUT_METRIC,)))

    def sentences(self) -> str:
        """How far ours lies from the claim, why, and what holding out costs."""
        reproduced = self.reproduced()
        if reproduced is None:
            return f"Not run yet. {self.claim.why}"
        away = 100 * (reproduced.mean - self.claim.accuracy)
        how_far = (f"{abs(away):.2f} points {'above' if away > 0 else 'below'} the claim"
                   if abs(away) >= 0.005 else "The claim to 0.01 points")
        between = prediction_interval(reproduced)
        if self.own.partial:
            how_far += f", after {self.own.partial}, which decides nothing yet"
        elif between is None:
            how_far += ", by one seed"
        else:
            low, high = between
            place = "within" if low <= self.claim.accuracy <= high else "beyond"
            how_far += (f", {place} the scatter of single runs, {100 * max(0, low):.2f} to "
                        f"{100 * min(1, high):.2f}")
        return " ".join([f"{how_far}.", self.claim.why, *self._cost()])

    def _cost(self) -> Iterator[str]:
        """What the honest protocol takes away, if it is another and both were run whole."""
        if self.held_out is self.own or self.own.partial or self.held_out.partial:
            return
        own = list(self.own.values(self.claim.figure).values())
        held_out = list(self.held_out.values(HELD_OUT_METRIC).values())
        if not own or not held_out:
            return
        difference = unpaired_difference(held_out, own)
        interval = "" if difference.low is None else (
            f" (95 % interval of the difference {100 * difference.low:+.2f} to "
            f"{100 * difference.high:+.2f})")
        yield (f"Held out, by {' '.join(self.system.replication.held_out)}, it is "
               f"{100 * abs(difference.mean):.2f} points "
               f"{'lower' if difference.mean < 0 else 'higher'}"
               f"{interval}.")


@dataclasses.dataclass(frozen=True)
class ReplicationReport:
    """What the report is made of.

    Attributes:
      systems: in the order of the table.
      collection: their runs.
      command: that made it.
    """

    systems: Sequence[System]
    collection: Collection
    command: str

    def rows(self) -> list[Row]:
        """A row for each claim."""
        rows = []
        for system in self.systems:
            runs = self.collection.runs[system.name]
            rows += [Row(system, claim, runs[ORIGINAL], runs.get(HELD_OUT, runs[ORIGINAL]))
                     for claim in system.replication.claims]
        return rows

    def files(self) -> dict[str, bytes]:
        """The files by their names, with a small one for each run that counts."""
        from flaxdigits.reports.replication_page import replication_page

        content = json.dumps(self.json(), indent=2, ensure_ascii=False) + "\n"
        return {
            "replication.md": f"# {self.title()}\n\n{self.block()}\n".encode(),
            "replication.json": content.encode(),
            "replication.html": replication_page(self).encode(),
            **{f"{KEPT}/{name}": record.file() for name, record in self.collection.records()}}

    def title(self) -> str:
        """One line."""
        only = f": {self.systems[0].name}" if len(self.systems) == 1 else ""
        return f"Claimed, reproduced, held out{only}"

    def terminal(self) -> Table:
        """For a terminal."""
        table = Table(*HEADER, title=Text(self.title(), "table.title"))
        for row in self.rows():
            table.add_row(*map(Text, row.cells()))
        return table

    def block(self) -> str:
        """The table in Markdown, with how it is to be read and a sentence or two a difference."""
        lines = [table_line(HEADER), "| --- | --- | --- | --- |"]
        lines += [table_line((f"`{name}`", *rest)) for name, *rest in
                  (row.cells() for row in self.rows())]
        lines += ["", _wrapped(f"{NOTE} {self.hardware()}"), f"Made by `{self.command}`.", ""]
        for row in self.rows():
            about = row.claim.about or METRIC_LABELS[row.claim.figure]
            lines.append(_wrapped(f"- `{row.system.name}`, {about}: {row.sentences()}", "  "))
        return "\n".join(lines)

    def hardware(self) -> str:
        """What the runs were run on, and with which JAX."""
        counts: dict[str, int] = {}
        for _, record in self.collection.records():
            jax = record.values.get("versions", {}).get("jax", "unknown")
            name = f"{record.machine}, JAX {jax}"
            counts[name] = counts.get(name, 0) + 1
        return " ".join(f"{count} run{'s' * (count != 1)} on {name}." for name, count in
                        counts.items()) or "No runs."

    def json(self) -> dict[str, object]:
        """The same with unrounded fractions, the seeds, and what does not count and why."""
        def runs(of: Runs, figures: Sequence[str]) -> dict[str, object]:
            return {
                "partial": of.partial, "seeds": sorted(of.records), "diverged": list(of.diverged),
                "figures": {figure: value and dataclasses.asdict(value) for figure, value in
                            ((figure, estimate_of(of, figure)) for figure in figures)}}

        return {
            "command": self.command, "hardware": self.hardware(),
            "rows": [{
                "experiment": row.system.name, "original": row.system.replication.original,
                "claimed": {"figure": row.claim.figure, "accuracy": row.claim.accuracy},
                "reproduced": runs(row.own, (row.claim.figure, *row.claim.beside)),
                "held_out": {"overrides": list(row.system.replication.held_out),
                             **runs(row.held_out, (HELD_OUT_METRIC,))},
                "explanation": row.sentences()} for row in self.rows()],
            "left_out": self.collection.left_out}


def put_between_markers(text: str, block: str) -> str:
    """A file's text with the block between its markers in place of what is there.

    Raises:
      FlaxdigitsError: if it has not one of each, in that order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise FlaxdigitsError(f"expected one line {BEGIN} and after it one line {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def estimate_of(runs: Runs, figure: str) -> Estimate | None:
    """A figure's mean over the seeds, if there is any."""
    values = list(runs.values(figure).values())
    return estimate(values) if values else None


def format_estimate(value: Estimate) -> str:
    """In per cent, like `98.29 ± 0.09`."""
    return f"{100 * value.mean:.2f}" + ("" if value.sd is None else f" ± {100 * value.sd:.2f}")


def _cell(runs: Runs, figures: Sequence[str]) -> str:
    estimates = [(figure, estimate_of(runs, figure)) for figure in figures]
    text = ", ".join(f"{METRIC_LABELS[figure]} {format_estimate(value)}"
                     for figure, value in estimates if value)
    if not text:
        return "not run" if not runs.diverged else f"all {len(runs.diverged)} seeds diverged"
    notes = [f"{len(runs.records)} seed{'s' * (len(runs.records) != 1)}"]
    if runs.partial:
        notes.insert(0, f"partial: {runs.partial}")
    if runs.diverged:
        notes.append(f"{len(runs.diverged)} diverged")
    return f"{text} ({', '.join(notes)})"


def _wrapped(text: str, indent: str = "") -> str:
    return "\n".join(textwrap.wrap(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))
