"""The table of what was tried and what survived."""

import dataclasses
import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lab import HANG, OTHER, TRACEBACK, WRONG, Trial

INTRODUCTION = """\
Each trial disturbs a run, its files, its machine or its inputs, and then continues or reads the
run. The trial is survived if the run reaches the result of an undisturbed run (bitwise identical,
where the devices are the same), or if it ends with a one-line error message and nothing is lost.
Any other number, a traceback, and a process that neither ends nor continues are faults."""

COLUMNS = {WRONG: "wrong numbers", TRACEBACK: "tracebacks", HANG: "hangs", OTHER: "other faults"}


@dataclasses.dataclass
class Row:
    """The trials of one kind."""

    kind: str
    trials: list[Trial] = dataclasses.field(default_factory=list)

    @property
    def tried(self) -> int:
        """How many were made."""
        return sum(trial.skipped is None for trial in self.trials)

    @property
    def faults(self) -> Counter:
        """How many faults of each kind were found."""
        return Counter(trial.fault.kind for trial in self.trials if trial.fault)

    def cells(self) -> list[str]:
        """Returns the row of the table."""
        faults = self.faults
        return [self.kind, f"{self.tried:,}", f"{self.tried - faults.total():,}",
                *(str(faults[kind]) for kind in COLUMNS)]


def markdown(rows: Sequence[Row], command: str, seed: int) -> str:
    """Returns the page with the table, the command and the machine."""
    head = ["fault", "tried", "survived", *COLUMNS.values()]
    total = Row("**all**", [trial for row in rows for trial in row.trials])
    lines = ["# Faults that were tried", "", INTRODUCTION, "",
             f"Created by `{command}` with seed {seed}, on {machine()}.", "",
             f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}",
             *(f"| {' | '.join(row.cells())} |" for row in [*rows, total])]
    skipped = sorted({f"- {row.kind}: not tried: {trial.skipped}"
                      for row in rows for trial in row.trials if trial.skipped})
    faults = [f"- {row.kind}: {trial.name}: {trial.fault}"
              for row in rows for trial in row.trials if trial.fault]
    return "\n".join([*lines, *[""][:len(skipped + faults)], *skipped, *faults]) + "\n"


def machine() -> str:
    """Returns the processor, its cores and the versions that matter."""
    import jax

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines()
                 if line.startswith("model name")]
        model = names[0] if names else model
    return (f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"JAX {jax.__version__}")
