"""Imports point downward: no module imports one of a layer above its own, and none in a circle.

Imports within functions and those that only a type checker sees count too.
"""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flaxdigits

pytestmark = pytest.mark.quick

PACKAGE = Path(flaxdigits.__file__).parent

# From the lowest layer to the highest; modules of one layer may import each other.
LAYERS = [
    ("command", "errors", "patterns", "jax_settings", "old_names", "plurals", "progress"),
    ("field_types", "json_files", "components"),
    ("schedules", "optimizers", "losses", "objectives", "augmentations", "metrics",
     "datasets"),
    ("models",), ("config",), ("overrides",), ("data",), ("training",), ("experiments",),
    ("evaluation",), ("studies",), ("reports",), ("benchmark",), ("api",), ("cli",), ("__main__",)]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

# Imports all modules of each layer while the layers above it cannot be imported.
IMPORT_LAYER_BY_LAYER = """
import importlib, pkgutil, sys
import flaxdigits
layers = {layers!r}
allowed = set()

class Blocker:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if parts[0] == "flaxdigits" and len(parts) > 1 and parts[1] not in allowed:
            raise ImportError(name + " is above " + ", ".join(layer))

sys.meta_path.insert(0, Blocker())
for layer in layers:
    allowed.update(layer)
    for name in layer:
        if name == "__main__":  # which runs a command when it is imported
            continue
        module = importlib.import_module("flaxdigits." + name)
        for info in pkgutil.walk_packages(getattr(module, "__path__", ()), module.__name__ + "."):
            if not info.name.endswith("_peer"):  # those import Keras or PyTorch
                importlib.import_module(info.name)
"""


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))
           if path != PACKAGE / "__init__.py"}


def imported_modules(path):
    """The modules that a file imports, within functions and under `TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if node.module == "flaxdigits" or name in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_belongs_to_a_layer():
    assert {name.split(".")[1] for name in MODULES} == LAYER.keys()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_layer_above_its_own(module):
    for name in imported_modules(MODULES[module]):
        package, _, rest = name.partition(".")
        if package == "flaxdigits" and rest:
            assert LAYER[rest.partition(".")[0]] <= LAYER[module.split(".")[1]], name


def test_no_modules_import_each_other():
    graph = {name: {*imported_modules(path)} for name, path in MODULES.items()}
    order = graphlib.TopologicalSorter(graph).static_order()  # a CycleError names a circle
    assert {*order} >= MODULES.keys()


def test_every_layer_is_imported_without_those_above():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_LAYER_BY_LAYER.format(layers=LAYERS)],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_errors_name_arguments_and_not_flags():
    """An error is read by callers in Python too, whose arguments have the names of the flags."""
    named = [
        f"{path.relative_to(PACKAGE)}:{text.lineno}: {text.value!r}"
        for path in PACKAGE.rglob("*.py") if path.parent.name != "cli"
        for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)
        for text in ast.walk(node) if isinstance(text, ast.Constant) and re.search(
            r"--[a-z_]{3,}", re.sub("srun --ntasks|install --upgrade", "", str(text.value)))]
    assert not named
