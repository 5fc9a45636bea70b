"""Tries every kind of fault and prints what survived: `python tests/faults --report=FILE.md`.

It takes about 40 minutes on two cores; `pytest -m faults` is the form of two minutes.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # before anything imports JAX

import argparse
import logging
import queue
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kinds import all_cases
from lab import OTHER, Case, Fault, Lab, Trial
from table import Row, markdown


def main() -> int:
    """Returns the exit status: 1 if a trial found a fault."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__)
    parser.add_argument("--report", type=Path, help="a Markdown file for the table")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cases at once")
    parser.add_argument("--only", action="append", default=[],
                        help="cases whose kind or name holds this text; repeatable")
    parser.add_argument("--short", action="store_true", help="the cases of pytest -m faults")
    parser.add_argument("--folder", type=Path, help="for what trials that find a fault leave")
    options = parser.parse_args()
    logging.getLogger("absl").disabled = True  # orbax's, where the comparison reads
    chosen = [case for case in all_cases("short" if options.short else "long")
              if not options.only
              or any(text in f"{case.kind} {case.name}" for text in options.only)]
    folder = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    lab = Lab(folder, keep=options.folder is not None)
    rows = {case.kind: Row(case.kind) for case in chosen}
    start = time.monotonic()
    try:
        for case, trial in run_cases(chosen, lab, options.seed, options.jobs):
            rows[case.kind].trials.append(trial)
            if trial.fault or trial.skipped:
                print(f"{case.kind}: {trial.name}: {trial.fault or trial.skipped}", flush=True)
            elif sys.stderr.isatty():
                count = sum(len(row.trials) for row in rows.values())
                print(f"\r{count} tried in {time.monotonic() - start:.0f} s", end="\r",
                      file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: the table holds what was tried until then")
    finally:
        lab.close()
    command = shlex.join(["python", "tests/faults", *sys.argv[1:]])
    text = markdown(list(rows.values()), command, options.seed)
    print(text)
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(text)
    return int(any(row.faults for row in rows.values()))


def run_cases(
    cases: list[Case], lab: Lab, seed: int, jobs: int
) -> Iterator[tuple[Case, Trial]]:
    """Yields the trials of all cases as they end; those that mostly wait run beside the others."""
    ended: queue.SimpleQueue[tuple[Case, Trial] | None] = queue.SimpleQueue()

    def run(case: Case) -> None:
        try:
            for trial in case.run(lab, seed):
                ended.put((case, trial))
        except Exception as error:  # one case must not cost the others' rows
            fault = Fault(OTHER, f"the case itself failed: {type(error).__name__}: {error}")
            ended.put((case, Trial(case.name, fault)))
        finally:
            ended.put(None)

    busy, waiting = ThreadPoolExecutor(jobs), ThreadPoolExecutor(jobs)
    try:
        for case in cases:
            (waiting if case.waits else busy).submit(run, case)
        remaining = len(cases)
        while remaining:
            trial = ended.get()
            if trial is None:
                remaining -= 1
            else:
                yield trial
    finally:
        for pool in (busy, waiting):
            pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main())
