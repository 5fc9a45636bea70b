"""Renders self-contained HTML pages from the jinja2 templates in this folder.

All templates extend `base.html`. Pages load no other resources and run no scripts; every value is
escaped.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent


def render(name: str, **values: Any) -> str:
    """Renders a template. A missing value raises an error.

    Args:
      name: the file name of the template.
      **values: the values of its variables.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True,
        undefined=jinja2.StrictUndefined).get_template(name).render(**values)


def themed(figures: Mapping[str, tuple[bytes, bytes]]) -> dict[str, dict[str, str]]:
    """Returns the data URLs of figures for a light and for a dark page.

    Args:
      figures: pairs of PNG files (light, dark) by name.
    """
    return {name: {"light": data_url(light), "dark": data_url(dark)}
            for name, (light, dark) in figures.items()}


def data_url(png: bytes) -> str:
    """Returns a `data:` URL that contains a PNG file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
