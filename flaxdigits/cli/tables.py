"""Tables on the console."""

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """Fits a terminal; a file or a pipe is as wide as the table needs."""
    console = Console(highlight=False)
    if not console.is_terminal:
        unbounded = console.options.update(max_width=10_000)
        console.width = max(console.width, console.measure(table, options=unbounded).maximum)
    console.print(table)
