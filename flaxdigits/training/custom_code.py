"""The files that define the custom components of a run: their copies in its folder, and changes.

A run folder contains a copy of each such file, and `config.json` its path and SHA-256. The copies
are for the user to read and to name with `--experiment`: no code is executed because it is in a run
folder. This module parses files but executes none.
"""

import ast
import dataclasses
import hashlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.components import Component, is_shipped
from flaxdigits.config import DataConfig, ExperimentConfig
from flaxdigits.datasets import find_dataset
from flaxdigits.errors import FlaxdigitsError

FOLDER = "code"  # of the copies, in the run folder
SOURCE = "__flaxdigits_source__"  # attribute of a module: the bytes of the file that were executed

# Functions of an experiment file whose results are recorded, or do not affect the result of a run.
ENTRY_POINTS = ("get_config", "get_trackers", "get_study", "get_replication")

WHOLE_FILE = "the file"
OTHER_STATEMENTS = "a statement at the top level"


@dataclasses.dataclass(frozen=True)
class CodeFile:
    """A file that defines custom components, as it was when it was executed.

    Attributes:
      name: the name of its copy.
      content: the content of the file.
      path: the absolute path; None for a script that was started itself, which must not be
        executed again.
      used: the names of the classes and functions that the run uses.
    """

    name: str
    content: bytes
    path: Path | None
    used: frozenset[str]

    @property
    def digest(self) -> str:
        """The SHA-256 of the content, in hex."""
        return _digest(self.content)


def code_files(config: ExperimentConfig) -> list[CodeFile]:
    """Returns the files that define the custom components of a config.

    Components that were defined in a notebook or at a prompt have no file.
    """
    used: dict[str, set[str]] = {}
    for definition in _custom_definitions(config):
        used.setdefault(definition.__module__, set()).add(definition.__name__)
    files: list[CodeFile] = []
    for module_name, names in used.items():
        module = sys.modules.get(module_name)
        path = Path(getattr(module, "__file__", None) or "")
        content = getattr(module, SOURCE, None) or (
            _read(path) if path.suffix == ".py" else None)
        if content is not None:
            is_taken = any(path.name == file.name for file in files)
            files.append(CodeFile(
                f"{len(files)}_{path.name}" if is_taken else path.name, content,
                None if module_name == "__main__" else path.absolute(), frozenset(names)))
    return files


def record_of(file: CodeFile) -> dict[str, Any]:
    """Returns what `config.json` contains about a file: `copy`, `path` and `sha256`."""
    return {"copy": file.name, "path": None if file.path is None else str(file.path),
            "sha256": file.digest}


def updated_records(
    folder: Path, recorded: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the records of files, with the digests of copies that the user has replaced.

    The digests that a file had before are kept under `earlier`.
    """
    updated = []
    for record in recorded:
        copied = _read(folder / FOLDER / record["copy"])
        if copied is None or _digest(copied) == record["sha256"]:
            updated.append(dict(record))
        else:
            updated.append({**record, "sha256": _digest(copied),
                            "earlier": [*record.get("earlier", []), record["sha256"]]})
    return updated


def code_changes(
    folder: Path, recorded: Sequence[Mapping[str, Any]], config: ExperimentConfig
) -> list[str]:
    """Returns how the code of a config differs from that of a run.

    Only the definitions that the run uses are compared, without comments and docstrings.

    Args:
      folder: the run folder.
      recorded: what `config.json` contains about its files; nothing is compared if it is empty.
      config: a config with the components of the run.

    Returns:
      Lines such as `SignDescent in mine.py has changed since the run began`.
    """
    changes = []
    for file in code_files(config) if recorded else ():
        if file.digest in [record["sha256"] for record in recorded]:
            continue
        found = [changed_definitions(_read(folder / FOLDER / record["copy"]), file.content,
                                     file.used)
                 for record in recorded]
        if all(found):
            names = next((names for names, record in zip(found, recorded, strict=True)
                          if record["copy"] == file.name), found[0])
            changes.append(f"{', '.join(names)} in {file.name} "
                           f"{'has' if len(names) == 1 else 'have'} changed since the run began")
    return changes


def originals(folder: Path, recorded: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Returns the paths of the original files of a run, which may be executed again.

    Raises:
      FlaxdigitsError: if one is missing, has changed in more than comments and docstrings, or is in
        the run folder; the message names its copy.
    """
    paths = []
    for record in recorded:
        copy = folder / FOLDER / record["copy"]
        path = None if record["path"] is None else Path(record["path"])
        reason = _unusable(path, copy, record["sha256"], folder)
        if reason is not None:
            raise FlaxdigitsError(
                f"{folder}: its custom components are defined in {path or record['copy']}, which "
                f"{reason}; to execute the copy in the run folder instead, pass "
                f"experiment={copy}")
        paths.append(path)
    return paths


def changed_definitions(
    old: bytes | None, new: bytes, used: Collection[str]
) -> list[str]:
    """Returns the names of the definitions that differ, of those that `used` depend on.

    Args:
      old: the content of the earlier file; None if it does not exist any more.
      new: the content of the later file, to which definitions may have been added.
      used: the names of classes and functions at the top level of the earlier file.
    """
    try:
        before, after = _statements(old or b"\0"), _statements(new)
    except (SyntaxError, ValueError):
        return [WHOLE_FILE]
    if not before.keys() >= set(used):
        used = before.keys()
    reached, waiting = set(), [*used, ""]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += before[name].names if name in before else ()
    # A name that only the later file binds replaces a builtin, or one of a `from x import *`.
    return [name or OTHER_STATEMENTS for name in dict.fromkeys((*before, *after))
            if name in reached and before.get(name) != after.get(name)]


@dataclasses.dataclass(frozen=True)
class _Statement:
    """The syntax tree of the statements that bind a name, and the names that occur in them."""

    code: str
    names: frozenset[str]


def _statements(content: bytes) -> dict[str, _Statement]:
    """Returns the statements at the top level by the name they bind, without docstrings.

    Those that bind no name, such as an `if`, are under an empty name; `ENTRY_POINTS` are left out.
    """
    found: dict[str, _Statement] = {}
    for node in _without_docstrings(content).body:
        names = frozenset(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
        for name in _bound_names(node):
            if name not in ENTRY_POINTS:
                before = found.get(name, _Statement("", frozenset()))
                found[name] = _Statement(before.code + ast.dump(node), before.names | names)
    return found


def _bound_names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).partition(".")[0].replace("*", "")
                for alias in node.names]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return [part.id for part in ast.walk(node)
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)] or [""]
    return [""]


def _without_docstrings(content: bytes) -> ast.Module:
    """Returns the syntax tree of a file. Comments and layout are not part of it."""
    tree = ast.parse(content)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _unusable(path: Path | None, copy: Path, digest: str, folder: Path) -> str | None:
    """Returns why the original file must not be executed without being named, or None."""
    if path is None:
        return "was started as a script"
    content = _read(path)
    if content is None:
        return "does not exist"
    if not path.is_absolute() or (
            {folder, folder.resolve()} & {*path.parents, *path.resolve().parents}):
        return "is in the run folder"
    if _digest(content) == digest:
        return None
    copied = _read(copy)
    is_same = copied is not None and _digest(copied) == digest and _same_code(content, copied)
    return None if is_same else "has changed since the run began"


def _same_code(first: bytes, second: bytes) -> bool:
    """Returns whether two files differ at most in comments, docstrings and layout."""
    try:
        return ast.dump(_without_docstrings(first)) == ast.dump(_without_docstrings(second))
    except (SyntaxError, ValueError):
        return False


def _custom_definitions(node: Any) -> Iterator[Any]:
    """Yields the class of each custom component in a config, and the function of its data set."""
    if isinstance(node, Component) and not is_shipped(type(node)):
        yield type(node)
    if isinstance(node, DataConfig):
        load = find_dataset(node.dataset).load
        if hasattr(load, "__module__") and hasattr(load, "__name__"):
            yield load
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(item):
                yield from _custom_definitions(item)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes | None:
    """Returns the content of a regular file, or None if it cannot be read."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None
