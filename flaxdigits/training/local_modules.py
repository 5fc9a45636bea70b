"""Modules of the user: those that an experiment file imports from its own folder.

They are loaded from their source, as the experiment file is, and not from a file in `__pycache__`,
so that the code that is executed is the code that a user can read.
"""

import contextlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

SOURCE = "__flaxdigits_source__"  # attribute of a module: the bytes of the file that were executed

INSTALLED = ("site-packages", "dist-packages")


def is_local(name: str) -> bool:
    """Returns whether `name` is a loaded module that belongs to the user.

    Other modules are part of Python or of flaxdigits, are installed, or have no Python file.
    """
    location = _location(sys.modules.get(name))
    return (location is not None and not _is_reserved(name)
            and not set(INSTALLED) & set(location.parts))


@contextlib.contextmanager
def importable_folder_of(path: Path) -> Iterator[None]:
    """Makes the modules and packages in the folder of a file importable within the block.

    They take precedence over modules of the same names in other folders. If a module with one of
    these names was loaded from another folder, or has changed since it was loaded, all of them are
    loaded again.

    Args:
      path: the path of the file. If it is in a package, the folder that contains the package is
        used instead.
    """
    folder = path.absolute().parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    finder, names = _FolderFinder(folder), {entry.stem for entry in folder.iterdir()}
    modules = {name: location for name in list(sys.modules)
               if name.partition(".")[0] in names and is_local(name)
               and (location := finder.locate(name)) is not None}
    if any(_is_stale(sys.modules[name], location) for name, location in modules.items()):
        for name in modules:
            del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _FolderFinder:
    """Finds the modules in a folder, for `sys.meta_path`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def locate(self, name: str) -> Path | None:
        """Returns the file of the module with this dotted name; None if the folder has none.

        The file of a package is its `__init__.py`. For a namespace package with Python files
        directly in it, the result is its folder.
        """
        path = self._folder.joinpath(*name.split("."))
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
        return path if path.is_dir() and any(path.glob("*.py")) else None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec of a module in the folder; None lets the other finders search for it."""
        location = None if _is_reserved(name) else self.locate(name)
        if location is None:
            return None
        if location.suffix == ".py":
            return importlib.util.spec_from_file_location(
                name, location, loader=_SourceLoader(name, str(location)))
        found = importlib.machinery.PathFinder.find_spec(name, path)
        if found is not None and found.origin is not None:  # an installed module or package
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(location)]
        return spec


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from its source, and keeps the source."""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.get_data(self.path), self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, SOURCE, self.get_data(self.path))
        super().exec_module(module)


def _is_reserved(name: str) -> bool:
    top = name.partition(".")[0]
    return top in ("flaxdigits", "__main__") or top in sys.stdlib_module_names


def _location(module: Any) -> Path | None:
    """Returns the Python file of a module, or the folder of a namespace package.

    Returns None for other modules, such as built-in ones, and for None.
    """
    file = getattr(module, "__file__", None)
    if file is not None:
        return Path(file).absolute() if file.endswith(".py") else None
    folders = list(getattr(module, "__path__", ()))
    return Path(folders[0]).absolute() if folders else None


def _is_stale(module: ModuleType, location: Path) -> bool:
    """Returns whether a module was loaded from a file other than `location`, or before it changed.
    """
    if _location(module) != location:
        return True
    return hasattr(module, SOURCE) and getattr(module, SOURCE) != location.read_bytes()
