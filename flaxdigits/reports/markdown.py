"""Markdown tables."""

from collections.abc import Sequence


def table_line(cells: Sequence[str]) -> str:
    """Returns a line of a table. Any `|` in a cell is escaped."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
