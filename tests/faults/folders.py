"""Disks that are full, folders that cannot be written or vanish, two processes in one folder."""

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab import (
    OTHER,
    WRONG,
    Case,
    Done,
    Fault,
    Impossible,
    Lab,
    check_message,
    check_success,
    single,
)
from runs import STEPS, check_same, count_rows, evaluated, json_rows, link_copy, recipe, reference

FULL, READ_ONLY, VANISHING = "full disk", "folder turned read-only", "folder deleted or renamed"
TOGETHER = "two processes in one folder"

# Lets the modes of files bind even a process of root's.
WITHOUT_RIGHTS = "setpriv", "--bounding-set=-dac_override,-dac_read_search"

# The writes of a run, each by what there is when it comes.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "config": lambda run: (run / "config.json").exists(),
    "lock": lambda run: (run / ".lock").exists(),
    "first row": lambda run: count_rows(run) >= 1,
    "third row": lambda run: count_rows(run) >= 3,
    "saving": lambda run: any((run / "checkpoints").glob("*orbax*")),
    "checkpoint": lambda run: (run / "checkpoints" / "20").exists(),
    "last row": lambda run: count_rows(run) >= STEPS // 5,
    "predictions": lambda run: (run / "predictions.npz").exists(),
    "figures": lambda run: any(run.glob("figures/*.png")),
    "report": lambda run: (run / "report.html").exists(),
}
SIZES = (8, 16, 32, 64, 128, 200, 280, 360, 440, 520, 600, 700, 800, 900, 1_000, 1_150, 1_300,
         1_500, 1_700)  # KiB; a run needs about 1,500


def cases(length: str) -> Iterator[Case]:
    """Yields disks of many sizes, folders that fail at each write, and pairs of processes."""
    is_long = length == "long"
    for kibibytes in SIZES if is_long else (440,):
        yield single(FULL, f"disk of {kibibytes} KiB", functools.partial(fill, kibibytes))
    for moment in MOMENTS if is_long else ("third row",):
        yield single(READ_ONLY, f"read-only at {moment}", functools.partial(protect, moment))
    for moment in MOMENTS if is_long else ("third row",):
        for how in ("renamed", "deleted") if is_long else ("renamed",):
            yield single(VANISHING, f"{how} at {moment}", functools.partial(vanish, moment, how))
        if is_long:
            yield single(VANISHING, f"checkpoints deleted at {moment}",
                         functools.partial(vanish, moment, "checkpoints deleted"))
    for number in range(6 if is_long else 1):
        yield single(TOGETHER, f"other seeds at once {number}",
                     functools.partial(start_two, ("--set=seed=0", "--set=seed=1")))
    for number in range(6 if is_long else 0):
        yield single(TOGETHER, f"the same twice at once {number}",
                     functools.partial(start_two, ("--set=seed=0", "--set=seed=0")))
        yield single(TOGETHER, f"two evaluations at once {number}", evaluate_twice)


@contextlib.contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[None]:
    """Mounts a disk of so many KiB."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise Impossible(f"a small disk needs the right to mount: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(kibibytes: int, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Trains on a disk that is too small, then, when there is more space, to the end."""
    expected, disk = reference(lab, "dropout"), scratch / "disk"
    flags = *recipe(lab, "dropout"), f"--workdir={disk / 'run'}"
    with small_disk(disk, kibibytes):
        check_message(lab.launch(*flags))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        check_success(lab.launch(*flags))
        check_same(disk / "run", expected)


@contextlib.contextmanager
def stopped_at(
    moment: str, lab: Lab, rng: random.Random, run: Path, through: Sequence[str] = ()
) -> Iterator[Callable[[], Done]]:
    """Stops a training at a moment, and yields what lets it go on to its end."""
    process = lab.start(*recipe(lab, "dropout"), f"--workdir={run}", through=through)
    if not process.wait_until(lambda: MOMENTS[moment](run)):
        raise Fault(OTHER, f"ended before its {moment}: {process.wait()}")
    time.sleep(rng.uniform(0, 0.02))
    process.process.send_signal(signal.SIGSTOP)

    def resume() -> Done:
        process.process.send_signal(signal.SIGCONT)
        return process.wait()

    yield resume


def protect(moment: str, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Takes the right to write from a run's folders, and gives it back to another process."""
    expected, run = reference(lab, "dropout"), scratch / "run"
    through = WITHOUT_RIGHTS if os.geteuid() == 0 else ()
    if through and subprocess.run([*through, "true"], check=False, capture_output=True).returncode:
        raise Impossible("root's rights cannot be dropped here")
    with stopped_at(moment, lab, rng, run, through) as resume:
        inside = [path for path in [run, *run.rglob("*")] if path.is_dir()]
        for folder in inside:
            folder.chmod(0o555)
        done = resume()
    for folder in inside:
        with contextlib.suppress(FileNotFoundError):
            folder.chmod(0o755)
    check_message(done)
    check_success(lab.launch(*recipe(lab, "dropout"), f"--workdir={run}"))
    check_same(run, expected)


def vanish(moment: str, how: str, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Takes the folder of a run away; nothing that is not a whole run may be left as one."""
    expected, run, away = reference(lab, "dropout"), scratch / "run", scratch / "away"
    with stopped_at(moment, lab, rng, run) as resume:
        if how == "renamed":
            run.rename(away)
        else:
            shutil.rmtree(run / "checkpoints" if how.startswith("checkpoints") else run,
                          ignore_errors=True)
        done = resume()
    check_message(done)
    if how == "checkpoints deleted":
        if done.status == 0:
            check_same_result(run, expected)
        return
    if run.exists() and any(run.iterdir()):
        raise Fault(OTHER, f"made the folder again, with {sorted(os.listdir(run))}: {done}")
    if how == "renamed":
        check_success(lab.launch(*recipe(lab, "dropout"), f"--workdir={away}"))
        check_same(away, expected)


def check_same_result(run: Path, expected: Path) -> None:
    """Raises Fault unless the accuracies are those of the uninterrupted run."""
    found, wanted = (json.loads((folder / "result.json").read_text())
                     for folder in (run, expected))
    if found["test_loss"] != wanted["test_loss"]:
        raise Fault(WRONG, f"test loss {found['test_loss']} in place of {wanted['test_loss']}")


def start_two(settings: tuple[str, str], lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Starts two trainings in one folder: one trains, and its config and result belong together."""
    run = scratch / "run"
    flags = *recipe(lab, "dropout"), f"--workdir={run}"
    processes = []
    for setting in settings:
        processes.append(lab.start(*flags, setting))
        time.sleep(rng.choice((0, rng.uniform(0, 0.3))))
    ends = [process.wait() for process in processes]
    for done in ends:
        check_message(done)
    winners = [setting for setting, done in zip(settings, ends, strict=True) if done.status == 0]
    if len(set(winners)) != 1:
        raise Fault(WRONG if winners else OTHER, f"{len(winners)} trained: {ends[0]} and {ends[1]}")
    check_same(run, reference(lab, "dropout", winners[0]))


def evaluate_twice(lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Starts two evaluations of all checkpoints at once: each step has one row."""
    expected = reference(lab, "everything")
    wanted, run = evaluated(lab, expected), link_copy(expected, scratch / "run")
    flags = "--mode=eval", "--checkpoint=all", f"--workdir={run}"
    processes = [lab.start(*flags) for _ in range(2)]
    ends = [process.wait() for process in processes]
    for done in ends:
        check_message(done)
    if all(done.status for done in ends):
        raise Fault(OTHER, f"neither scored: {ends[0]} and {ends[1]}")
    counts = Counter(row["step"] for row in json_rows(run / "eval.jsonl"))
    if set(counts) != set(wanted) or set(counts.values()) != {1}:
        raise Fault(OTHER, f"steps were not scored once each: {dict(counts)}")
