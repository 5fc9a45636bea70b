"""The folder of a run: config, metrics, result, checkpoints and report.

A run whose loss stopped being finite has a `diverged.json` in place of a result.

Files are replaced by rename, so that each is whole at any moment. JSON goes in and out; nothing
that is read is executed.
"""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from flaxdigits.config import ExperimentConfig, complete, flatten, from_dict, to_dict
from flaxdigits.errors import FlaxdigitsError, quoted
from flaxdigits.training import run_files

# Orbax takes the path of a checkpoint for a pattern when it writes one.
PATTERN = "[]*?"

# What may differ between a run's start and its continuation: when to pause, with how many others
# it is trained, and how many checkpoints to keep, decide nothing about the result. Nor does where
# the data lie, whose fingerprint is compared.
CHANGEABLE = ("train.stop_after", "train.seeds_per_call", "checkpoint.keep", "data.folder",
              "data.indices")

LENGTH = ("epochs", "steps")  # the fields of `train` that set the length of a run

TEACHER = "train.objective.teacher"

# What identifies the data of a run; `config.json` contains more about them.
IDENTITY = ("dataset", "source", "fingerprint", "class_names", "official_train", "validation",
            "image_shape", "writers", "indices")

LOCK = ".lock"
PART = ".part"  # ends the name of a file that is being written
WRITTEN_UNDER_LOCK = ("config.json", "metrics.jsonl", "result.json", "diverged.json")
RUN_OUTPUTS = ("metrics.jsonl", "result.json", "diverged.json")

_log = logging.getLogger(__name__)

ADVICE = {"write": "name another place, or make this one writable and with space",
          "read": "name a file that is there and may be read"}


class RunFolder:
    """Reads and writes the files of one run; in a run of many processes only one writes.

    Args:
      path: the folder; made by the first write.
      is_writer: whether this process writes at all.
    """

    def __init__(self, path: str | os.PathLike[str], is_writer: bool = True) -> None:
        if not isinstance(path, str | os.PathLike):
            raise FlaxdigitsError(f"a run folder is named by its path, got {path!r}")
        self.path: Path = Path(path).absolute()
        self._is_writer = is_writer
        self._lock: int | None = None

    def __fspath__(self) -> str:
        """Returns the path, so that a RunFolder can stand where a path is expected."""
        return str(self.path)

    @classmethod
    def of(cls, folder: "RunFolder | str | os.PathLike[str]") -> "RunFolder":
        """Returns a RunFolder as it is, and makes one of a path.

        Raises:
          FlaxdigitsError: if it is neither.
        """
        return folder if isinstance(folder, RunFolder) else cls(folder)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    def has_checkpoints(self) -> bool:
        """Whether the run has saved anything to go on from."""
        return any(path.name.isdecimal() for path in self.checkpoints.glob("*"))

    def contents(self) -> list[str]:
        """The names of its files and checkpoints."""
        return sorted(path.name for folder in (self.path, self.checkpoints)
                      for path in folder.glob("[!.]*"))

    def config(self) -> ExperimentConfig:
        """The config of the run.

        Raises:
          FlaxdigitsError: if this is not a run folder or its config.json is damaged.
        """
        values = self._start()["config"]
        try:
            return from_dict(values)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"{self.path / 'config.json'}: {error}") from error

    def data(self) -> dict[str, Any]:
        """What `config.json` holds about the run's data.

        `dataset`, `source` and `fingerprint`; of custom data also `class_names`,
        `official_train` and `framing`, unless an older version began the run.
        """
        return self._start()["data"]

    def about(self) -> dict[str, Any]:
        """Returns what `config.json` contains in addition to the config: data, versions, commit."""
        return {name: value for name, value in self._start().items() if name != "config"}

    def recorded(self) -> dict[str, Any]:
        """Returns the content of `config.json`, with the config as it is written there."""
        return self._start()

    def result(self) -> dict[str, Any] | None:
        """Returns what `result.json` holds, or None if the run has not finished.

        The result of a length from which the run is being extended does not count.

        Raises:
          FlaxdigitsError: if it is damaged, or is the result of another run than `config.json`.
        """
        try:
            result = run_files.read_result(self.path / "result.json")
        except FileNotFoundError:
            return None
        if not (self.path / "config.json").exists():
            return result
        recorded = self.recorded()
        if result["steps"] in recorded.get("extended_at", ()):
            return None
        config = flatten(recorded["config"])
        for name, value in (("seed", config.get("seed")), ("split", config.get("data.split"))):
            if value is not None and result[name] != value:
                raise FlaxdigitsError(
                    f"{self.path / 'result.json'}: is the result of another run: its {name} is "
                    f"{quoted(result[name])} and config.json has {quoted(value)}; "
                    f"{run_files.RESULT_ADVICE}")
        return result

    def diverged(self) -> dict[str, Any] | None:
        """Of a run whose loss stopped being finite: the `step` and the `message`; or None.

        Raises:
          FlaxdigitsError: if `diverged.json` is damaged.
        """
        with contextlib.suppress(FileNotFoundError):
            return run_files.read_diverged(self.path / "diverged.json")
        return None

    def has_ended(self) -> bool:
        """Returns whether the run has a result or has diverged.

        Raises:
          FlaxdigitsError: if the file that says so is damaged.
        """
        return self.result() is not None or self.diverged() is not None

    def start(self, config: ExperimentConfig, about: dict[str, Any]) -> None:
        """Writes `config.json`, or checks that the one there is of the same run.

        A run that goes on with its data in another place has that place in its config from then
        on.

        Args:
          config: resolved.
          about: `data` (see `data()`), and `versions`, `git_commit`, `machine`, `init_from` and
            `teacher`. The first three of these may differ. A caller that begins a run for others to
            train leaves them out; they are added then.

        Raises:
          FlaxdigitsError: naming what differs, or if the folder cannot be written, `check_name`
            refuses it, or it holds files of a run but no `config.json`.
        """
        self.check_name()
        new = {"config": to_dict(config), **about}
        if not self.is_begun():
            self.write_json("config.json", new)
            return
        self.check_same(config, about)
        recorded = self._start()
        if recorded.keys() == {"config", "data"}:
            self.write_json("config.json", recorded | about)
        elif not self.has_ended() and _places(recorded) != _places(new):
            moved = dict(recorded["config"])
            for (section, name), place in _places(new).items():
                moved[section] = moved[section] | {name: place}
            self.write_json("config.json", recorded | {"config": moved})

    def extend(self, config: ExperimentConfig) -> None:
        """Writes the length of a config into that of a finished run, which it continues.

        `config.json` records the lengths that the run had. The result stays in `result.json` until
        it is replaced by that of the new length, and in `result.<steps>.json`.

        Args:
          config: of the run, with another length.
        """
        if not self._is_writer:
            return
        recorded, result = self._start(), self.result()
        self.write_json(f"result.{result['steps']}.json", result)
        train = recorded["config"]["train"]
        self.write_json("config.json", {
            "first_length": {name: train.get(name) for name in LENGTH}, **recorded,
            "config": recorded["config"] | {
                "train": train | {name: getattr(config.train, name) for name in LENGTH}},
            "extended_at": [*recorded.get("extended_at", ()), result["steps"]]})
        _log.info("%s: extends the run, which was complete with %d steps", self.path,
                  result["steps"])

    def is_begun(self) -> bool:
        """Returns whether there is a run in it.

        Raises:
          FlaxdigitsError: if there are files of a run, but not its `config.json`, so that it is
            unknown which run they belong to.
        """
        with readable_os_errors(self.path):
            if (self.path / "config.json").exists():
                return True
            left = [name for name in RUN_OUTPUTS if (self.path / name).exists()]
        if self.has_checkpoints():
            left.insert(0, "checkpoints")
        if left:
            raise FlaxdigitsError(
                f"{self.path}: holds {' and '.join(left)} of a run, but no config.json to tell of "
                "which: put that back, or choose another --workdir")
        return False

    def check_same(self, config: ExperimentConfig, about: Mapping[str, Any]) -> None:
        """Raises FlaxdigitsError naming what differs if the folder holds another run.

        Args:
          config: resolved.
          about: `data` (see `data()`), and the digests `init_from` and `teacher` of the weights
            that `train.init_from` and `train.objective.teacher` name, if they are there.
        """
        changes = self.differences({"config": to_dict(config), **about})
        if not changes:
            return
        advice = "choose another --workdir or start with the same settings"
        if any(change.startswith(("train.steps ", "train.epochs ")) for change in changes):
            advice += ("; a run can be extended when it is complete; to train longer, start "
                       "another run from the weights of this one: "
                       f"--set train.init_from={self.path}")
        raise FlaxdigitsError(f"{self.path} holds another run: {'; '.join(changes)}; {advice}")

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Returns how another run differs from the recorded one, such as `seed was 0 and is 1`.

        The path of the data may differ if the fingerprint is the same. So may `train.init_from`,
        once the run has a checkpoint, unless the weights at that path have another digest.

        Args:
          other: `config` and `data`, as `recorded()` gives them, and `init_from` and `teacher`:
            the digests of the weights that `train.init_from` and `train.objective.teacher` name,
            missing or None if they are not there.
        """
        recorded = self._start()
        free = CHANGEABLE
        if self._is_from_the_same_weights(recorded, other):
            free = (*free, "train.init_from")
        changed_teacher = []
        if None not in (recorded.get("teacher"), other.get("teacher")):
            free = (*free, TEACHER)
            if recorded["teacher"] != other["teacher"]:
                changed_teacher = [f"{TEACHER} has other weights than when the run began"]
        old, new = (flatten(complete(run["config"])) for run in (recorded, other))
        names = [name for name in sorted(old.keys() | new.keys())
                 if old.get(name) != new.get(name) and name not in free]
        return data_differences(recorded["data"], other["data"]) + changed_teacher + [
            _difference(name, old.get(name), new.get(name)) for name in names]

    def _is_from_the_same_weights(
        self, recorded: Mapping[str, Any], other: Mapping[str, Any]
    ) -> bool:
        old, new = (flatten(run["config"]).get("train.init_from") for run in (recorded, other))
        digest = recorded.get("init_from")
        return (None not in (old, new, digest) and self.has_checkpoints()
                and other.get("init_from") in (None, digest))

    def check_name(self) -> None:
        """Raises FlaxdigitsError if checkpoints could be saved here, but not read again."""
        strange = [character for character in PATTERN if character in str(self.path)]
        if strange:
            raise FlaxdigitsError(
                f"{self.path}: a run cannot be saved in a path with {' or '.join(strange)}; choose "
                "another --workdir")

    def check_writable(self) -> None:
        """Raises FlaxdigitsError if files cannot be made here."""
        if self._is_writer:
            with readable_os_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                probe = self._part("writable")
                probe.touch(exist_ok=False)
                probe.unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in the folder, which is made if it is missing.

        The lock is the kernel's, so that it goes with its process, however that ends. While it is
        taken, every write checks that the folder is still the one that was locked.

        Raises:
          FlaxdigitsError: if another process has it, or nothing can be written.
        """
        if not self._is_writer:
            yield
            return
        self.check_name()
        with readable_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FlaxdigitsError(f"{self.path}: another process trains there; wait for it, "
                                      "or choose another --workdir") from None
            except OSError:  # a file system without locks
                pass
            self._lock = lock
            self.check_present()
            self._clear_parts()
            yield
        finally:
            self._lock = None
            os.close(lock)

    def check_present(self) -> None:
        """Raises FlaxdigitsError if the folder is not the one that was locked.

        A folder that was deleted, moved or replaced while a run trains in it must not be filled
        with the rest of that run.
        """
        if self._lock is None:
            return
        there, locked = None, os.fstat(self._lock)
        with (readable_os_errors(self.path),
              contextlib.suppress(FileNotFoundError, NotADirectoryError)):
            there = os.stat(self.path / LOCK)
        if there is None or not os.path.samestat(there, locked):
            raise FlaxdigitsError(
                f"{self.path}: was deleted, moved or replaced while a run trained there; nothing "
                "more is written: restore it to resume from the last checkpoint, or start a new "
                "run")

    def remove_if_recreated(self) -> None:
        """Removes the folder if Orbax's background threads made it again after it was moved.

        Orbax creates missing parents of what it saves. Every folder that a run has locked holds a
        lock file, so one without it that holds checkpoints alone is such a folder.
        """
        try:
            self.check_present()
        except FlaxdigitsError:
            # When a save has failed, other threads of it still write, and cannot be waited for.
            for _ in range(10):
                with contextlib.suppress(OSError):
                    if os.listdir(self.path) == [self.checkpoints.name]:
                        shutil.rmtree(self.path)
                time.sleep(0.1)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Replaces a file by rename."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Adds a line of JSON to a file; a last line that was cut short stays by itself."""
        if self._is_writer:
            self.check_present()
            with readable_os_errors(self.path / name), open(self.path / name, "ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(json.dumps(row).encode() + b"\n")

    def rows(self, name: Literal["metrics.jsonl", "eval.jsonl"]) -> list[dict[str, Any]]:
        """Returns the rows of a file; a last one that was cut short is left out.

        Other damaged lines are left out with a warning.

        Raises:
          FlaxdigitsError: if the file cannot be read, or a row has a field of another kind.
        """
        read = {"metrics.jsonl": run_files.read_metrics, "eval.jsonl": run_files.read_evaluations}
        rows, damaged = read[name](self.path / name)
        for line in damaged:
            _log.warning("%s: line %d is damaged and left out", self.path / name, line)
        return rows

    def cut_metrics(self, step: int) -> None:
        """Leaves only the rows of `metrics.jsonl` up to `step`."""
        rows = [row for row in self.rows("metrics.jsonl") if row["step"] <= step]
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

    def write(self, name: str, content: bytes) -> None:
        """Replaces a file, which may be in a folder of its own, by rename."""
        if not self._is_writer:
            return
        self.check_present()
        path, part = self.path / name, self._part(name)
        with readable_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(part, "xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                self.check_present()
                part.replace(path)
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        """Returns the path of a hidden file that no other process writes."""
        path = self.path / name
        return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")

    def _clear_parts(self) -> None:
        """Deletes what a killed process left half written of the files that the lock protects."""
        for name in WRITTEN_UNDER_LOCK:
            for part in self.path.glob(f".{name}.*{PART}"):
                with contextlib.suppress(OSError):
                    part.unlink()

    def _start(self) -> dict[str, Any]:
        try:
            return run_files.read_config(self.path / "config.json")
        except FileNotFoundError:
            runs = sorted(path for above in (".", "*", "folds/*")
                          for path in self.path.glob(f"{above}/seeds/*/config.json"))
            reason = (
                f"holds several runs; name one of them, such as {runs[0].parent}," if runs else
                "not a run folder, it has no config.json; name the folder of a run")
            raise FlaxdigitsError(f"{self.path}: {reason} with --workdir") from None


def data_differences(recorded: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """In what data are not those of a run, like `data.source was 'real' and is 'drawn'`.

    Args:
      recorded: of the run, see `RunFolder.data`; what an older version did not record is not
        compared.
      data: as `Dataset.identity` gives them.
    """
    return [_difference(f"data.{name}", recorded[name], data[name]) for name in IDENTITY
            if name in recorded and name in data and recorded[name] != data[name]]


def _difference(name: str, old: Any, new: Any) -> str:
    return f"{name} was {quoted(old)} and is {quoted(new)}"


def _places(run: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Where the data and the first weights of a run are, by section and field of its config."""
    values = flatten(run["config"])
    return {(section, name): values.get(f"{section}.{name}")
            for section, name in (
                ("data", "folder"), ("data", "indices"), ("train", "init_from"))}


@contextlib.contextmanager
def readable_os_errors(path: Path, what: Literal["write", "read"] = "write") -> Iterator[None]:
    """Converts an OSError of the block into a FlaxdigitsError of one line that names the path."""
    try:
        yield
    except OSError as error:
        raise FlaxdigitsError(
            f"{path}: cannot {what}: {error.strerror or error}; {ADVICE[what]}") from error
