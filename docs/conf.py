"""Settings of the documentation, which `sphinx-build -W docs build/docs` builds."""

import dataclasses
from importlib import metadata
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject

project = "flaxdigits"
author = "The flaxdigits authors"
project_copyright = author
version = release = metadata.version("flaxdigits")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

# Pages are Markdown. Headings get anchors, so that links to them work as on GitHub.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# Docstrings are in Google's style, with code in single backticks.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # an overridden method is described in the base class
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"optax.Schedule": "optax.Schedule"}
autodoc_default_options = {"members": True}
for field in PyObject.doc_field_types:
    if field.name == "variable":
        field.label = "Attributes"
python_maximum_signature_line_length = 88

highlight_language = "none"  # blocks of commands have no language

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = "flaxdigits"
html_show_sphinx = False
html_copy_source = False


def add_bounds(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Adds to the docstring of a component the bounds of its fields, except inherited ones."""
    if what != "class" or not dataclasses.is_dataclass(obj):
        return
    bounds = []
    for field in dataclasses.fields(obj):
        limits = [f"{relation} {value:g}" for relation, value in
                  field.metadata.get("bounds", {}).items() if value < 2**31]
        if limits and field.name in obj.__annotations__:
            bounds.append(f"`{field.name}` {' and '.join(limits)}")
    if bounds:
        lines += ["", f"Bounds: {', '.join(bounds)}.", ""]


def setup(app: Sphinx) -> None:
    """Connects the functions of this file."""
    app.connect("autodoc-process-docstring", add_bounds, priority=900)  # after napoleon
