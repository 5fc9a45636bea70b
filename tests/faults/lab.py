"""Where faults are tried: a folder with data, the command as it is run, and what is expected of it.

A case is one kind of damage done to one command. It yields trials, each of which survives or ends
in a `Fault`: a wrong number, a traceback, a hang, or anything else that nobody should meet.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import random
import select
import shlex
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch.py"
SECONDS = 180.0  # after which a process counts as hanging; an uninterrupted one takes about 5
INPUTS_PER_WORKER = 150  # what JAX keeps of every program is freed with its process

WRONG, TRACEBACK, HANG, OTHER = "wrong number", "traceback", "hang", "other"


class Fault(Exception):
    """What a trial found.

    Args:
      kind: WRONG, TRACEBACK, HANG or OTHER.
      detail: one line that says what was seen.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class Impossible(Exception):
    """Why a trial cannot be made on this machine."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One try: its name, and the fault it found or why it was not made, if either."""

    name: str
    fault: Fault | None = None
    skipped: str | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """Trials of one kind, drawn from a seed.

    Attributes:
      kind: the row of the table.
      name: what is done, different from every other case.
      trials: makes them, with a generator of random numbers that depends on seed and name alone.
      waits: whether it waits more than it computes.
    """

    kind: str
    name: str
    trials: Callable[["Lab", random.Random], Iterable[Trial]]
    waits: bool = False

    def run(self, lab: "Lab", seed: int) -> Iterator[Trial]:
        """Yields the trials."""
        yield from self.trials(lab, random.Random(f"{seed} {self.name}"))


def single(
    kind: str, name: str, function: Callable[["Lab", random.Random, Path], None],
    waits: bool = False,
) -> Case:
    """Returns a case of one trial; the function takes a scratch folder of its own."""
    return Case(kind, name, lambda lab, rng: [lab.attempt(name, function, lab, rng)], waits)


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that has ended, or was killed because it did not: then `status` is None."""

    arguments: Sequence[str]
    status: int | None
    output: str
    errors: str

    def __str__(self) -> str:
        """Returns the command, its status and the end of what it wrote, in one line."""
        message = " | ".join((self.errors or self.output).strip().splitlines()[-3:])
        command = shlex.join(self.arguments)
        return f"exit status {self.status}: {message[-400:]} [... {command[-600:]}]"


class Worker:
    """A process that has imported JAX and runs command lines one after another, which is faster."""

    def __init__(self, lab: "Lab") -> None:
        self._lab = lab
        self._files = [lab.folder / f"worker-{os.getpid()}-{id(self)}.{name}"
                       for name in ("out", "err")]
        self._process: subprocess.Popen[str] | None = None
        self._count = 0

    def run(self, arguments: Sequence[str], timeout: float = SECONDS) -> Done:
        """Runs `launch.main` with the arguments."""
        if self._count == INPUTS_PER_WORKER:
            self.close()
        if self._process is None:
            self._process, self._count = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("worker.py"))], cwd=self._lab.cwd,
                env=self._lab.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True), 0
        self._count += 1
        process = self._process
        request = {"arguments": list(arguments), "files": [str(path) for path in self._files]}
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], timeout)
        reply = process.stdout.readline() if ready else ""
        status = json.loads(reply) if reply else (process.wait() if ready else None)
        if not reply:
            self.close()
        texts = [path.read_text(errors="replace") if path.exists() else ""
                 for path in self._files]
        return Done(arguments, status, *texts)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Lab:
    """Data, commands and scratch folders below one folder.

    Args:
      folder: may be shared by processes; uninterrupted runs are made in it once.
      keep: whether the scratch folders of trials that found a fault stay.
    """

    def __init__(self, folder: Path, keep: bool = False) -> None:
        self.folder, self.cwd = folder.absolute(), folder.absolute() / "cwd"
        self._keep = keep
        self._own = threading.local()
        self._workers: list[Worker] = []
        self.cwd.mkdir(parents=True, exist_ok=True)
        (self.folder / "home").mkdir(exist_ok=True)
        dropped = ("FLAXDIGITS_", "JAX_", "XLA_", "TFDS_", "SLURM_", "PYTEST_")
        self.environment: dict[str, str] = {
            name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        self.environment |= {
            "JAX_PLATFORMS": "cpu", "HOME": str(self.folder / "home"), "COLUMNS": "300",
            "FLAXDIGITS_PROGRESS": "off",  # its lines depend on the time that things take
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / f"compiled-{os.getpid()}"),
            "TFDS_DATA_DIR": str(self.folder / "prepared")}

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.close()

    def start(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> "Running":
        """Starts `launch.py`, its output in files; `through` is a command that starts it."""
        return Running([str(argument) for argument in arguments], self,
                       self.environment | dict(env or {}), through)

    def launch(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None,
        timeout: float = SECONDS,
    ) -> Done:
        """Runs `launch.py` in a process of its own, to its end."""
        return self.start(*arguments, env=env).wait(timeout)

    def enter(self, *arguments: str | Path) -> Done:
        """Runs `launch.main` in this thread's worker: the same, without the start of a process."""
        if not hasattr(self._own, "worker"):
            self._own.worker = Worker(self)
            self._workers.append(self._own.worker)
        return self._own.worker.run([str(argument) for argument in arguments])

    def attempt(self, name: str, function: Callable[..., None], *arguments: object) -> Trial:
        """Makes a trial: `function(*arguments, scratch)` raises Fault, Impossible or nothing."""
        scratch = self.folder / "scratch" / "".join(c if c.isalnum() else "-" for c in name)[:150]
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        fault = skipped = None
        try:
            function(*arguments, scratch)
        except Fault as found:
            fault = found
        except Impossible as reason:
            skipped = str(reason)
        except Exception as error:  # a single trial must not cost the table
            fault = Fault(OTHER, f"the trial itself failed: {type(error).__name__}: {error}")
        if fault is None or not self._keep:
            shutil.rmtree(scratch, ignore_errors=True)
        return Trial(name, fault, skipped)

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """Returns a folder that `make` has filled; by one process, for all that share the lab."""
        path, part = self.folder / "made" / name, self.folder / "made" / f"{name}.part"
        path.parent.mkdir(exist_ok=True)
        with open(self.folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                make(part)
                part.rename(path)
        return path

    def data(self) -> Path:
        """The folder of 200 training and 70 test images of ten classes, in idx files."""
        return self.once("idx", write_idx_files)


class Running:
    """A process of `launch.py`."""

    def __init__(
        self, arguments: Sequence[str], lab: Lab, env: Mapping[str, str],
        through: Sequence[str],
    ) -> None:
        self._arguments = arguments
        self._files = [lab.folder / f"process-{os.getpid()}-{id(self)}.{name}"
                       for name in ("out", "err")]
        with open(self._files[0], "wb") as output, open(self._files[1], "wb") as errors:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*through, sys.executable, str(LAUNCH), *arguments], cwd=lab.cwd, env=env,
                stdout=output, stderr=errors, stdin=subprocess.DEVNULL)

    def wait(self, timeout: float = SECONDS) -> Done:
        """Waits for its end, and kills it after `timeout` seconds."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = None
        texts = [path.read_text(errors="replace") for path in self._files]
        for path in self._files:
            path.unlink()
        return Done(self._arguments, status, *texts)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait_until(self, condition: Callable[[], bool], timeout: float = SECONDS) -> bool:
        """Waits for a condition, the end of the process or the time; returns the condition."""
        end = time.monotonic() + timeout
        while not condition():
            if not self.is_running() or time.monotonic() > end:
                return condition()
            time.sleep(0.003)
        return True


def check_message(done: Done, statuses: Sequence[int] = (0, 2)) -> None:
    """Raises Fault unless a command ended well or with one clear line.

    Args:
      done: the command.
      statuses: the exit statuses that are right.
    """
    if done.status is None:
        raise Fault(HANG, f"did not end: {done}")
    if "Traceback" in done.errors or "Traceback" in done.output:
        raise Fault(TRACEBACK, str(done))
    if done.status not in statuses:
        raise Fault(OTHER, f"unexpected end: {done}")
    lines = [line for line in done.errors.splitlines() if not line.startswith("note: ")]
    if done.status == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
        raise Fault(OTHER, f"{len(lines)} lines, not one with `error:`: {done}")
    if done.status != 2 and not all(line.startswith("error: ") for line in lines):
        raise Fault(OTHER, f"stray lines on standard error: {done}")


def check_refused(done: Done) -> None:
    """Raises Fault unless the command ended with status 2 and one line."""
    check_message(done, (2,))


def check_success(done: Done) -> None:
    """Raises Fault unless the command ended with status 0."""
    check_message(done, (0,))


def write_idx_files(folder: Path) -> None:
    """Writes images of 28x28: ten classes of bright bars in noise."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 70)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = rng.integers(0, 80, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 2:2 * label + 6, 5:20] += 150
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 2051, count, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 2049, count) + labels.tobytes())
