"""The files of the custom components of a run: finds them, and compares them with their copies.

These are the files that define the components, and the modules of the user that they import. A run
folder contains a copy of each of them, and `config.json` its path and SHA-256. The copies are for
the user to read and to name with `--experiment`: no code is executed because it is in a run folder.
This module parses files but executes none.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxdigits.components import Component, is_built_in
from flaxdigits.config import DataConfig, ExperimentConfig
from flaxdigits.datasets import find_dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.local_modules import SOURCE, is_local

FOLDER = "code"  # the subfolder of the run folder that contains the copies

# Functions of an experiment file whose results are recorded, or do not affect the result of a run.
ENTRY_POINTS = ("get_config", "get_trackers", "get_study", "get_replication")

WHOLE_FILE = "the file"
OTHER_STATEMENTS = "a statement at the top level"


@dataclasses.dataclass(frozen=True)
class CodeFile:
    """A file of custom components, as it was when it was executed.

    Attributes:
      name: the path of the copy within the folder `code` of the run folder. It is such that the
        copies can import each other.
      content: the content of the file.
      path: the absolute path; None for a script that was run directly, which must not be
        executed again.
      used: the names of the classes and functions that the run uses; None: all.
      is_imported: whether the file defines no component of the run, but is imported by others.
    """

    name: str
    content: bytes
    path: Path | None
    used: frozenset[str] | None
    is_imported: bool = False

    @property
    def digest(self) -> str:
        """The SHA-256 of the content, in hex."""
        return _digest(self.content)


def code_files(config: ExperimentConfig) -> list[CodeFile]:
    """Returns the files that define the custom components of a config, then the files they import.

    Components that were defined in a notebook or at a prompt have no file. Of the imported modules,
    only loaded modules of the user are included (see `is_local`).
    """
    used: dict[str, set[str] | None] = {}
    for definition in _custom_definitions(config):
        _add_used(used, definition.__module__, {definition.__name__})
    defining = set(used)
    contents: dict[str, bytes] = {}
    waiting = list(used)
    for name in waiting:  # the list grows by the imports of each module
        content = _content_of(name)
        if content is not None:
            contents[name] = content
            imported = {other: names for other, names in _imports(name, content).items()
                        if is_local(other)}
            waiting += [other for other in imported if other not in used]
            for other, names in imported.items():
                _add_used(used, other, names)
    files: list[CodeFile] = []
    for name, content in contents.items():
        path = Path(sys.modules[name].__file__ or "").absolute()
        if not any(path == file.path for file in files):
            names, taken = used[name], {file.name for file in files}
            files.append(CodeFile(
                _copy_name(name, path, taken), content, None if name == "__main__" else path,
                None if names is None else frozenset(names), name not in defining))
    return files


def record_of(file: CodeFile) -> dict[str, Any]:
    """Returns what `config.json` contains about a file: `copy`, `path` and `sha256`.

    A file that defines no component of the run, but is imported by others, also has `imported`,
    which is true.
    """
    return {"copy": file.name, "path": None if file.path is None else str(file.path),
            "sha256": file.digest} | ({"imported": True} if file.is_imported else {})


def updated_records(
    folder: Path, recorded: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the records of files, in which a copy that the user has replaced has its new digest.

    The previous digests are kept under `earlier`.

    Args:
      folder: the run folder.
      recorded: the values of `record_of` for each file, from `config.json`.
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

    Only the definitions that the run uses are compared, without comments and docstrings. A file has
    changed if it differs from every copy with which it is compared.

    Args:
      folder: the run folder.
      recorded: what `config.json` contains about the files of the run. If it is empty, nothing is
        compared; a module that is only imported is compared only if it is recorded.
      config: a config with the components of the run.

    Returns:
      Lines such as `SignDescent in mine.py has changed since the run began`.
    """
    changes = []
    for file in code_files(config) if recorded else ():
        if file.digest in [record["sha256"] for record in recorded]:
            continue
        # A file that defines components may have another name now, so that any copy may match.
        compared = [record for record in recorded
                    if not file.is_imported or record["copy"] == file.name]
        changed = [changed_definitions(_read(folder / FOLDER / record["copy"]), file.content,
                                       file.used)
                   for record in compared]
        if changed and all(changed):
            names = next((names for names, record in zip(changed, compared, strict=True)
                          if record["copy"] == file.name), changed[0])
            changes.append(f"{', '.join(names)} in {file.name} "
                           f"{'has' if len(names) == 1 else 'have'} changed since the run began")
    return changes


def originals(folder: Path, recorded: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Returns the paths of the original files that define components, which may be executed again.

    Raises:
      FlaxdigitsError: if one of the files, or of the files they import, is missing, has changed in
        more than comments and docstrings, is in the run folder, or was started as a script; the
        message names the copy to execute.
    """
    defining = [record for record in recorded if not record.get("imported")]
    for record in recorded:
        path = None if record["path"] is None else Path(record["path"])
        reason = _unusable(path, folder / FOLDER / record["copy"], record["sha256"], folder)
        if reason is not None:
            is_imported = record not in defining
            copy = folder / FOLDER / (defining or recorded)[0]["copy"] if is_imported else (
                folder / FOLDER / record["copy"])
            raise FlaxdigitsError(
                f"{folder}: its custom components {'import' if is_imported else 'are defined in'} "
                f"{path or record['copy']}, which {reason}; to execute the copy in the run folder "
                f"instead, pass experiment={copy}")
    return [Path(record["path"]) for record in defining]


def changed_definitions(
    old: bytes | None, new: bytes, used: Collection[str] | None
) -> list[str]:
    """Returns the names of the definitions that differ between two versions of a file.

    Only the definitions in `used`, and those on which they depend, are compared.

    Args:
      old: the content of the earlier file; None if it does not exist any more.
      new: the content of the later file, to which definitions may have been added.
      used: the names of classes and functions at the top level of the earlier file; None: all.
    """
    try:
        before, after = _statements(old or b"\0"), _statements(new)  # b"\0" is a ValueError
    except (SyntaxError, ValueError):
        return [WHOLE_FILE]
    if used is None or not before.keys() >= set(used):
        used = before.keys()
    reached, waiting = set(), [*used, ""]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += before[name].names if name in before else ()
    # A name that is bound only in the later file may replace a builtin or a name that the earlier
    # file got from `from x import *`, and is therefore compared, too.
    return [name or OTHER_STATEMENTS for name in dict.fromkeys((*before, *after))
            if name in reached and before.get(name) != after.get(name)]


@dataclasses.dataclass(frozen=True)
class _Statement:
    """The statements of a file that bind one name.

    Attributes:
      code: their syntax trees, as text.
      names: the names that occur in them.
    """

    code: str
    names: frozenset[str]


def _statements(content: bytes) -> dict[str, _Statement]:
    """Returns the statements at the top level by the name they bind, without docstrings.

    Statements that bind no name, such as an `if`, have an empty name; `ENTRY_POINTS` are left out.
    """
    found: dict[str, _Statement] = {}
    for node in _without_docstrings(content).body:
        occurring = frozenset(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
        for name in _bound_names(node):
            if name not in ENTRY_POINTS:
                previous = found.get(name, _Statement("", frozenset()))
                found[name] = _Statement(
                    previous.code + ast.dump(node), previous.names | occurring)
    return found


def _bound_names(node: ast.stmt) -> list[str]:
    """Returns the names that a statement binds; an empty name stands for other effects."""
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
    """Returns why a file must not be executed unless the user names it; None if it may be.

    Args:
      path: the path of the original file; None for a script that was run directly.
      copy: the path of the copy in the run folder.
      digest: the recorded SHA-256 of the original file, and so of the copy.
      folder: the run folder.
    """
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
    if isinstance(node, Component) and not is_built_in(type(node)):
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


def _content_of(module_name: str) -> bytes | None:
    """Returns the content of a module's file as it was executed; None if it has no Python file."""
    module = sys.modules.get(module_name)
    path = Path(getattr(module, "__file__", None) or "")
    return getattr(module, SOURCE, None) or (_read(path) if path.suffix == ".py" else None)


def _imports(module_name: str, content: bytes) -> dict[str, set[str] | None]:
    """Returns the names that a module imports, by the module that contains them.

    None stands for the whole module. Submodules, and the packages that contain an imported module,
    are included.
    """
    package = getattr(sys.modules[module_name], "__package__", None)
    found: dict[str, set[str] | None] = {}
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):  # the file has been changed since it was imported
        return {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                _add_used(found, alias.name, None)
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                _add_used(found, base, None if alias.name == "*" else {alias.name})
                _add_used(found, f"{base}.{alias.name}", None)  # if it is a submodule
    for name in list(found):
        while "." in name:
            name = name.rpartition(".")[0]
            _add_used(found, name, set())
    return found


def _add_used(used: dict[str, set[str] | None], module_name: str, names: set[str] | None) -> None:
    """Adds `names`, or all names if it is None, to the names of a module that are used."""
    before = used.get(module_name, set())
    used[module_name] = None if names is None or before is None else before | names


def _copy_name(module_name: str, path: Path, taken: Collection[str]) -> str:
    """Returns the path of the copy of a module's file in the folder of the copies."""
    name = path.name
    if module_name.rpartition(".")[2] in (path.stem, path.parent.name):
        # The module was imported by this name, and its copy must be importable by it, too.
        name = "/".join(module_name.split(".")) + (
            "/__init__.py" if path.name == "__init__.py" else ".py")
    return f"{len(taken)}_{name}" if name in taken else name


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes | None:
    """Returns the content of a regular file, or None if it cannot be read."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None
