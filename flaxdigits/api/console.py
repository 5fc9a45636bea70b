"""Prints to a terminal, a file, a pipe or a notebook."""

from rich.console import Console
from rich.table import Table


def make_console(quiet: bool = False, stderr: bool = False) -> Console:
    """Creates a console for a terminal, a file or a pipe; in a notebook it prints plain lines.

    Lines are not wrapped, and brackets and colons have no special meaning.
    """
    return Console(quiet=quiet, stderr=stderr, highlight=False, markup=False, emoji=False,
                   soft_wrap=True, force_jupyter=False)


def print_table(console: Console, table: Table) -> None:
    """Prints a table: fitted to the width of a terminal, in a file or a pipe as wide as needed."""
    if not console.is_terminal:
        unbounded = console.options.update(max_width=10_000)
        table.width = console.measure(table, options=unbounded).maximum
    console.print(table, soft_wrap=False, crop=False)
