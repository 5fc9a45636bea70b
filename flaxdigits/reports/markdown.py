"""Tables in Markdown."""

from collections.abc import Sequence


def table_line(cells: Sequence[str]) -> str:
    """A line of a table; a `|` within a cell does not end it."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
