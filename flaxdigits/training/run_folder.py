"""Reads and writes the folder of a run: config, metrics, result, checkpoints and report.

If the loss of a run becomes NaN or infinite, its folder contains a `diverged.json` instead of a
result.

Files are replaced atomically by renaming, so a reader never sees an incomplete file. Every file
that is read here is JSON, and nothing is executed.
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
from flaxdigits.training import custom_code, run_files

# Orbax treats the path of a checkpoint as a glob pattern when it saves one.
GLOB_CHARACTERS = "[]*?"

# The fields that may change when a run is resumed. They do not affect the result: when to pause,
# with how many other seeds the run is trained, how many checkpoints to keep, and the paths of the
# data, whose fingerprint is compared instead.
CHANGEABLE = ("train.stop_after", "train.seeds_per_call", "checkpoint.keep", "data.folder",
              "data.indices")

LENGTH_FIELDS = ("epochs", "steps")  # the fields of `train` that set the length of a run

TEACHER = "train.objective.teacher"  # the field with the path of the teacher's run

# The fields of `data` in `config.json` that identify the data of a run; further fields describe it.
IDENTITY = ("dataset", "source", "fingerprint", "class_names", "official_train", "validation",
            "image_shape", "writers", "indices")

LOCK = ".lock"
PART = ".part"  # the suffix of a file that is being written
WRITTEN_UNDER_LOCK = ("config.json", "metrics.jsonl", "result.json", "diverged.json")
RUN_OUTPUTS = ("metrics.jsonl", "result.json", "diverged.json")

_log = logging.getLogger(__name__)

ADVICE = {"write": "free space and make it writable, or choose another path",
          "read": "name a file that exists and is readable"}


class RunFolder:
    """Reads and writes the files of one run; of several processes only one writes.

    Args:
      path: the path of the folder, which is created by the first write.
      is_writer: whether this process writes; if not, the methods that write do nothing.
    """

    def __init__(self, path: str | os.PathLike[str], is_writer: bool = True) -> None:
        if not isinstance(path, str | os.PathLike):
            raise FlaxdigitsError(f"a run folder must be given as a path, got {path!r}")
        self.path: Path = Path(path).absolute()
        self._is_writer = is_writer
        self._lock: int | None = None

    def __fspath__(self) -> str:
        """Returns the path, so that a RunFolder is accepted wherever a path is."""
        return str(self.path)

    @classmethod
    def of(cls, folder: "RunFolder | str | os.PathLike[str]") -> "RunFolder":
        """Returns a RunFolder unchanged, and creates one from a path.

        Raises:
          FlaxdigitsError: if the argument is neither.
        """
        return folder if isinstance(folder, RunFolder) else cls(folder)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def has_checkpoints(self) -> bool:
        """Returns whether the run has a checkpoint from which it can resume."""
        return self.newest_step() > 0

    def newest_step(self) -> int:
        """Returns the step of the newest checkpoint, 0 if there is none."""
        return max((int(path.name) for path in self.checkpoints.glob("*")
                    if path.name.isdecimal()), default=0)

    def contents(self) -> list[str]:
        """Returns the names of the files and checkpoints, sorted."""
        return sorted(path.name for folder in (self.path, self.checkpoints)
                      for path in folder.glob("[!.]*"))

    def config(self) -> ExperimentConfig:
        """Returns the config of the run.

        Raises:
          FlaxdigitsError: if this is not a run folder, or its `config.json` is damaged.
        """
        values = self.recorded()["config"]
        try:
            return from_dict(values)
        except FlaxdigitsError as error:
            raise FlaxdigitsError(f"{self.path / 'config.json'}: {error}") from error

    def code(self) -> list[dict[str, Any]]:
        """Returns what `config.json` contains about the files of the run's custom components.

        For each file these are the values of `custom_code.record_of`, and under `earlier` the
        digests of copies that the user has replaced.

        Raises:
          FlaxdigitsError: as `recorded` does.
        """
        return self.recorded().get("code", [])

    def code_changes(self, config: ExperimentConfig) -> list[str]:
        """Returns how the code of a config's components differs from that of the run.

        The lines are those of `custom_code.code_changes`.
        """
        return custom_code.code_changes(self.path, self.code(), config)

    def original_code(self) -> list[Path]:
        """Returns the paths of the files that define the run's components.

        Raises:
          FlaxdigitsError: as `custom_code.originals` does.
        """
        return custom_code.originals(self.path, self.code())

    def is_code_copy(self, path: str | os.PathLike[str]) -> bool:
        """Returns whether a path is within the subfolder `code`, which contains copies of code."""
        return (self.path / custom_code.FOLDER).resolve() in Path(path).resolve().parents

    def data(self) -> dict[str, Any]:
        """Returns what `config.json` contains about the data of the run.

        The fields are those of `LabeledImages.description`; fields that an earlier version did not
        record are missing.

        Raises:
          FlaxdigitsError: as `recorded` does.
        """
        return self.recorded()["data"]

    def check_is_run(self) -> None:
        """Raises FlaxdigitsError if this is not a run folder, or its `config.json` is damaged."""
        self.recorded()

    def metadata(self) -> dict[str, Any]:
        """Returns the fields of `config.json` other than the config, such as `data`, `versions`.

        Raises:
          FlaxdigitsError: as `recorded` does.
        """
        return {name: value for name, value in self.recorded().items() if name != "config"}

    def recorded(self) -> dict[str, Any]:
        """Returns the content of `config.json`; the config is not upgraded to this version.

        Raises:
          FlaxdigitsError: if this is not a run folder, or its `config.json` is damaged.
        """
        try:
            return run_files.read_config(self.path / "config.json")
        except FileNotFoundError:
            runs = sorted(path for above in (".", "*", "folds/*")
                          for path in self.path.glob(f"{above}/seeds/*/config.json"))
            reason = (
                "contains several runs; select one of them, such as "
                f"workdir={runs[0].parent}" if runs else
                "not a run folder, because it has no config.json; workdir must be a run folder")
            raise FlaxdigitsError(f"{self.path}: {reason}") from None

    def result(self) -> dict[str, Any] | None:
        """Returns the content of `result.json`, or None if the run has not finished.

        A finished run that is being extended counts as not finished.

        Raises:
          FlaxdigitsError: if the file is damaged, or contains the result of a run other than that
            of `config.json`.
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
        """Returns the `step` and `message` of a run that diverged, or None if it did not.

        A run diverges if its loss or its train state becomes NaN or infinite.

        Raises:
          FlaxdigitsError: if `diverged.json` is damaged.
        """
        with contextlib.suppress(FileNotFoundError):
            return run_files.read_diverged(self.path / "diverged.json")
        return None

    def has_ended(self) -> bool:
        """Returns whether the run has a result or has diverged.

        Raises:
          FlaxdigitsError: if `result.json` or `diverged.json` is damaged.
        """
        return self.result() is not None or self.diverged() is not None

    def record_config(self, config: ExperimentConfig, metadata: dict[str, Any]) -> None:
        """Writes `config.json`, or checks that the existing one describes this run.

        If a run is resumed and its data or initial weights have moved, the new paths are written
        to `config.json`.

        Args:
          config: the resolved config.
          metadata: the other fields of `config.json`: `data` (see `data()`), `versions`,
            `git_commit`, `machine`, `command`, `init_from` and `teacher`. `versions`, `git_commit`,
            `machine` and `command` may differ when a run is resumed. A caller that creates a folder
            in which another process trains passes only `data` and `command`; that process adds the
            others.

        Raises:
          FlaxdigitsError: if the folder is of another run (the message names what differs), if it
            cannot be written, if `check_path` rejects it, or if it contains files of a run but no
            `config.json`.
        """
        self.check_path()
        new = {"config": to_dict(config), **metadata}
        if not self.contains_run():
            files = custom_code.code_files(config)
            for file in files:
                self.write(f"{custom_code.FOLDER}/{file.name}", file.content)
            records = {"code": [custom_code.record_of(file) for file in files]} if files else {}
            self.write_json("config.json", new | records)
            return
        self.check_same(config, metadata)
        recorded = self.recorded()
        if recorded.keys() - {"code", "command"} == {"config", "data"}:
            # The folder was created by a caller that passed only a part of the metadata.
            self.write_json("config.json", metadata | recorded)
        elif not self.has_ended():
            # The data and the initial weights are the same, but their paths may have changed.
            updated = recorded | {"config": dict(recorded["config"])}
            for (section, name), path in _input_paths(new).items():
                if path != _input_paths(recorded)[section, name]:
                    updated["config"][section] = updated["config"][section] | {name: path}
            if "code" in recorded:
                updated["code"] = custom_code.updated_records(self.path, recorded["code"])
            if updated != recorded:
                self.write_json("config.json", updated)

    def contains_run(self) -> bool:
        """Returns whether the folder contains a run.

        Raises:
          FlaxdigitsError: if the folder contains files of a run but no `config.json`, and it is
            therefore unknown which run they belong to.
        """
        with readable_os_errors(self.path):
            if (self.path / "config.json").exists():
                return True
            outputs = [name for name in RUN_OUTPUTS if (self.path / name).exists()]
        if self.has_checkpoints():
            outputs.insert(0, "checkpoints")
        if outputs:
            raise FlaxdigitsError(
                f"{self.path}: contains {' and '.join(outputs)} but no config.json, so the run "
                "cannot be identified; restore config.json, or choose another workdir")
        return False

    def check_same(self, config: ExperimentConfig, metadata: Mapping[str, Any]) -> None:
        """Raises FlaxdigitsError if the folder is of another run; the message names what differs.

        Args:
          config: the resolved config.
          metadata: `data` (see `data()`), and `init_from` and `teacher`, the digests of the weights
            that `train.init_from` and `train.objective.teacher` name, if these weights exist.
        """
        changes = self.differences({"config": to_dict(config), **metadata})
        changed_code = self.code_changes(config)
        if not changes and changed_code:
            copy = self.path / custom_code.FOLDER / self.code()[0]["copy"]
            raise FlaxdigitsError(
                f"{self.path} contains another run: {'; '.join(changed_code)}; resume it with "
                f"its own code: experiment={copy}, or choose another workdir; if the change cannot "
                "affect the result, replace the copy of each changed file with that file")
        if not changes:
            return
        raise FlaxdigitsError(
            f"{self.path} contains another run: {'; '.join(changes)}; choose another workdir or "
            "start with the same settings")

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Returns the differences between this run and another, such as `seed was 0 and is 1`.

        The path of the data may differ if the fingerprint is the same. Once the run has a
        checkpoint, `train.init_from` may differ too, unless the weights at the new path
        have a different digest.

        Args:
          other: `config` and `data` in the format of `recorded()`, and `init_from` and `teacher`,
            the digests of the weights that `train.init_from` and `train.objective.teacher` name;
            a digest is None or missing if the weights do not exist.
        """
        recorded = self.recorded()
        ignored: list[str] = list(CHANGEABLE)
        if self._is_from_the_same_weights(recorded, other):
            ignored.append("train.init_from")
        changed_teacher = []
        if None not in (recorded.get("teacher"), other.get("teacher")):
            ignored.append(TEACHER)  # its digest is compared instead of its path
            if recorded["teacher"] != other["teacher"]:
                changed_teacher = [f"the weights of {TEACHER} have changed since the run started"]
        old, new = (flatten(complete(run["config"])) for run in (recorded, other))
        names = [name for name in sorted(old.keys() | new.keys())
                 if old.get(name) != new.get(name) and name not in ignored]
        return data_differences(recorded["data"], other["data"]) + changed_teacher + [
            _difference(name, old.get(name), new.get(name)) for name in names]

    def _is_from_the_same_weights(
        self, recorded: Mapping[str, Any], other: Mapping[str, Any]
    ) -> bool:
        """Returns whether `train.init_from` of two configs may name the same weights.

        The run must have a checkpoint and a digest of its initial weights. If `other` has a digest,
        both must be equal.
        """
        old, new = (flatten(run["config"]).get("train.init_from") for run in (recorded, other))
        digest = recorded.get("init_from")
        return (None not in (old, new, digest) and self.has_checkpoints()
                and other.get("init_from") in (None, digest))

    def check_path(self) -> None:
        """Raises FlaxdigitsError if Orbax could not read a checkpoint that is saved at this path.
        """
        special = [character for character in GLOB_CHARACTERS if character in str(self.path)]
        if special:
            raise FlaxdigitsError(
                f"{self.path}: a run cannot be saved in a path with {' or '.join(special)}; choose "
                "another workdir")

    def check_writable(self) -> None:
        """Creates the folder if needed; raises FlaxdigitsError if no file can be created in it."""
        if self._is_writer:
            with readable_os_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                probe = self._part("writable")
                probe.touch(exist_ok=False)
                probe.unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder, so that no other process trains in it; creates the folder if needed.

        The kernel releases the lock when the process ends for any reason. While the folder is
        locked, every write checks that the folder is still the one that was locked.

        Raises:
          FlaxdigitsError: if another process has locked the folder, or it cannot be written.
        """
        if not self._is_writer:
            yield
            return
        self.check_path()
        with readable_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FlaxdigitsError(
                    f"{self.path}: another process is training in this folder; wait until it ends, "
                    "or choose another workdir") from None
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

        If the folder has been deleted, moved or replaced during training, nothing more may be
        written to its path.
        """
        if self._lock is None:
            return
        found, locked = None, os.fstat(self._lock)
        with (readable_os_errors(self.path),
              contextlib.suppress(FileNotFoundError, NotADirectoryError)):
            found = os.stat(self.path / LOCK)
        if found is None or not os.path.samestat(found, locked):
            raise FlaxdigitsError(
                f"{self.path}: was deleted, moved or replaced during training, so nothing more is "
                "written; restore it to resume from the last checkpoint, or start a new run")

    def remove_if_recreated(self) -> None:
        """Removes the folder if a background thread of Orbax has recreated it after it was moved.

        Orbax creates the missing parent folders of a checkpoint. A folder that a run has locked
        contains a lock file; a folder that contains only checkpoints was therefore recreated.
        """
        try:
            self.check_present()
        except FlaxdigitsError:
            # After a failed save, other threads of Orbax still write and cannot be joined, so the
            # folder may reappear after it was removed.
            for _ in range(10):
                with contextlib.suppress(OSError):
                    if os.listdir(self.path) == [self.checkpoints.name]:
                        shutil.rmtree(self.path)
                time.sleep(0.1)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Writes a JSON file, as `write` does."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Appends a line of JSON to a file.

        If the last line is incomplete, because a process was killed while writing it, a newline is
        inserted first.

        Raises:
          FlaxdigitsError: if the file cannot be written, or the folder was moved.
        """
        if self._is_writer:
            self.check_present()
            with readable_os_errors(self.path / name), open(self.path / name, "ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(json.dumps(row).encode() + b"\n")

    def rows(self, name: Literal["metrics.jsonl", "eval.jsonl"]) -> list[dict[str, Any]]:
        """Returns the rows of a file; there are none if it does not exist.

        An incomplete last line is left out. Other lines that are not JSON are skipped with a
        warning.

        Raises:
          FlaxdigitsError: if the file cannot be read, a line is not a JSON object, or a field is
            missing or of the wrong kind.
        """
        read = {"metrics.jsonl": run_files.read_metrics, "eval.jsonl": run_files.read_evaluations}
        rows, damaged = read[name](self.path / name)
        for line in damaged:
            _log.warning("%s: line %d is damaged and is skipped", self.path / name, line)
        return rows

    def truncate_metrics(self, step: int) -> None:
        """Removes the rows after `step` from `metrics.jsonl`.

        Raises:
          FlaxdigitsError: if the file cannot be read or written, or the folder was moved.
        """
        rows = [row for row in self.rows("metrics.jsonl") if row["step"] <= step]
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whose name may include folders; an existing file is replaced atomically.

        Raises:
          FlaxdigitsError: if the file cannot be written, or the folder was moved.
        """
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
        """Deletes incomplete copies of the files in `WRITTEN_UNDER_LOCK` that a killed run left."""
        for name in WRITTEN_UNDER_LOCK:
            for part in self.path.glob(f".{name}.*{PART}"):
                with contextlib.suppress(OSError):
                    part.unlink()


def data_differences(recorded: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """Returns how data differ from those of a run, such as `data.source was 'real' and is 'drawn'`.

    Args:
      recorded: the data of the run (see `RunFolder.data`). Fields that an earlier version did not
        record are not compared.
      data: the output of `Dataset.identity`.
    """
    return [_difference(f"data.{name}", recorded[name], data[name]) for name in IDENTITY
            if name in recorded and name in data and recorded[name] != data[name]]


def _difference(name: str, old: Any, new: Any) -> str:
    return f"{name} was {quoted(old)} and is {quoted(new)}"


def _input_paths(run: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Returns the paths of the data and initial weights of a run, by config section and field."""
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
