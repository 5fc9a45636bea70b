"""The folder of a run: config, metrics, result, checkpoints and report.

A run whose loss stopped being finite has a `diverged.json` in place of a result.

Files are replaced by rename, so that each is whole at any moment. JSON goes in and out; nothing
that is read is executed.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from flaxdigits.config import ExperimentConfig, ModelConfig, flatten, from_dict, to_dict
from flaxdigits.errors import FlaxdigitsError

# Orbax takes the path of a checkpoint for a pattern when it writes one.
PATTERN = "[]*?"

# What may differ between a run's start and its continuation: when to pause, with how many others
# it is trained, and how many checkpoints to keep, decide nothing about the result.
FREE_TO_CHANGE = ("train.stop_after", "train.together", "checkpoint.keep")

ADVICE = {"write": "name another place, or make this one writable and with space",
          "read": "name a file that is there and may be read"}


class RunFolder:
    """Reads and writes the files of one run; in a run of many processes only one writes.

    Args:
      path: the folder; made by the first write.
      is_writer: whether this process writes at all.
    """

    def __init__(self, path: Path, is_writer: bool = True) -> None:
        self.path: Path = path.absolute()
        self._is_writer = is_writer

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

    def config(self, model_config: type[ModelConfig] = ModelConfig) -> ExperimentConfig:
        """The config of the run.

        Args:
          model_config: the class of its `model`, if it is one of the user's own.

        Raises:
          FlaxdigitsError: if this is not a run folder or its config.json is damaged.
        """
        values = self._start()["config"]
        try:
            return from_dict(values, model_config)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"{self.path / 'config.json'}: {error}") from error

    def data(self) -> dict[str, str]:
        """`dataset`, `source` and `fingerprint` of the run's data."""
        return self._start()["data"]

    def about(self) -> dict[str, Any]:
        """What `config.json` tells beside the config: data, versions, commit."""
        return {name: value for name, value in self._start().items() if name != "config"}

    def recorded(self) -> dict[str, Any]:
        """All that `config.json` tells, the config as it is written there."""
        return self._start()

    def result(self) -> dict[str, Any] | None:
        """The finished run's result, or None."""
        return self._read("result.json") if (self.path / "result.json").exists() else None

    def diverged(self) -> dict[str, Any] | None:
        """Of a run whose loss stopped being finite: the `step`, and what is `told`; or None."""
        return self._read("diverged.json") if (self.path / "diverged.json").exists() else None

    def start(self, config: ExperimentConfig, about: dict[str, Any]) -> None:
        """Writes `config.json`, or checks that the one there is of the same run.

        Args:
          config: resolved.
          about: `data` (see `data()`), and `versions`, `git_commit` and `machine`, which may
            differ. Who begins a run for others to train leaves them out; they are added then.

        Raises:
          FlaxdigitsError: naming what differs, or if the folder cannot be written or `check_name`
            refuses it.
        """
        self.check_name()
        if self.is_begun():
            self.check_same(config, about["data"])
            recorded = self._start()
            if recorded.keys() == {"config", "data"}:
                self.write_json("config.json", recorded | about)
        else:
            self.write_json("config.json", {"config": to_dict(config), **about})

    def is_begun(self) -> bool:
        """Whether there is a run in it."""
        with clear_errors(self.path):
            return (self.path / "config.json").exists()

    def check_same(self, config: ExperimentConfig, data: dict[str, str]) -> None:
        """Raises FlaxdigitsError naming what differs if the run in it is another."""
        changes = self.differences({"config": to_dict(config), "data": data})
        if changes:
            raise FlaxdigitsError(
                f"{self.path} holds another run: {'; '.join(changes)}; choose another --workdir "
                "or start with the same settings")

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """In what the run in it is another, like `seed was 0 and is 1`; nothing if it is not.

        Args:
          other: `config` and `data`, as `recorded()` gives them.
        """
        old, new = (flatten(run["config"]) | flatten(run["data"], "data.")
                    for run in (self._start(), other))
        return [f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
                for name in sorted(old.keys() | new.keys())
                if old.get(name) != new.get(name) and name not in FREE_TO_CHANGE]

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
            with clear_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                probe = self.path / ".writable"
                probe.write_text("")
                probe.unlink()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training in it.

        The lock is the kernel's, so that it goes with its process, however that ends.

        Raises:
          FlaxdigitsError: if another process holds it, or nothing can be written.
        """
        if not self._is_writer:
            yield
            return
        with clear_errors(self.path):
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FlaxdigitsError(f"{self.path}: another process trains there; wait for it, "
                                      "or choose another --workdir") from None
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(lock)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Replaces a file by rename."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Adds a line of JSON to a file; a last line that was cut short stays by itself."""
        if self._is_writer:
            with clear_errors(self.path / name), open(self.path / name, "ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(json.dumps(row).encode() + b"\n")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The lines of a file; a last one that was cut short is left out."""
        path = self.path / name
        with clear_errors(path, "read"):
            if not path.exists():
                return []
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        rows = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def cut_metrics(self, step: int) -> None:
        """Leaves only the rows of `metrics.jsonl` up to `step`."""
        rows = [row for row in self.rows("metrics.jsonl") if row["step"] <= step]
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

    def write(self, name: str, content: bytes) -> None:
        """Replaces a file, which may be in a folder of its own, by rename."""
        if not self._is_writer:
            return
        path, part = self.path / name, self.path / f"{name}.part"
        with clear_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(part, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)

    def _start(self) -> dict[str, Any]:
        values = self._read("config.json")
        if not all(isinstance(values.get(name), dict) for name in ("config", "data")):
            raise FlaxdigitsError(f"{self.path / 'config.json'}: not a run's config; expected "
                                  "the fields config and data")
        return values

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            runs = sorted(path for above in (".", "*", "folds/*")
                          for path in self.path.glob(f"{above}/seeds/*/config.json"))
            told = (f"holds several runs; name one of them, such as {runs[0].parent}," if runs else
                    f"not a run folder, it has no {name}; name the folder of a run")
            raise FlaxdigitsError(f"{self.path}: {told} with --workdir") from None
        except (OSError, ValueError) as error:
            raise FlaxdigitsError(f"{path}: cannot be read: {error}") from error
        if not isinstance(value, dict):
            raise FlaxdigitsError(f"{path}: expected a JSON object")
        return value


@contextlib.contextmanager
def clear_errors(path: Path, what: Literal["write", "read"] = "write") -> Iterator[None]:
    """Turns the system's refusals to write (or read) into one line that names the path."""
    try:
        yield
    except OSError as error:
        raise FlaxdigitsError(
            f"{path}: cannot {what}: {error.strerror or error}; {ADVICE[what]}") from error
