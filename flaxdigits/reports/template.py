"""Self-contained pages: jinja2 templates beside this file on the one base `base.html`.

They load nothing from elsewhere and run no script; every value is escaped.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent


def render(name: str, **values: Any) -> str:
    """The page of a template; a value that it lacks raises.

    Args:
      name: of the file.
      values: what the template takes.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True,
        undefined=jinja2.StrictUndefined).get_template(name).render(**values)


def themed(figures: Mapping[str, tuple[bytes, bytes]]) -> dict[str, dict[str, str]]:
    """The addresses of figures for a light and for a dark page.

    Args:
      figures: PNG files by name, light and dark.
    """
    return {name: {"light": address(light), "dark": address(dark)}
            for name, (light, dark) in figures.items()}


def address(png: bytes) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
