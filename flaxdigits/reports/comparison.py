"""Several runs side by side."""

from rich.table import Table
from rich.text import Text

from flaxdigits.training.run_folder import RunFolder

COLUMNS = {
    "experiment": "{}", "dataset": "{}", "data_source": "{}", "split": "{}", "seed": "{}",
    "steps": "{}", "train_accuracy": "{:.3%}", "validation_accuracy": "{:.3%}",
    "test_accuracy": "{:.3%}", "test_loss": "{:.4f}", "steps_per_second": "{:.1f}",
    "parameters": "{:,}", "device": "{}",
}


def comparison_table(folders: list[RunFolder]) -> Table:
    """A row a figure and a column a run, whose names are those of the folders.

    Raises:
      FlaxdigitsError: if a folder holds no run.
    """
    table = Table()
    table.add_column("", no_wrap=True)
    results = []
    for folder in folders:
        result = folder.result()
        name = folder.path.name
        if result is None:
            data = folder.data()
            result = {"dataset": data["dataset"], "data_source": data["source"]}
            name += " (unfinished)"
        results.append(result)
        table.add_column(Text(name), justify="right", overflow="fold")
    for name, form in COLUMNS.items():
        values = [result.get(name) for result in results]
        if any(value is not None for value in values):
            cells = ("-" if value is None else form.format(value) for value in values)
            table.add_row(name, *map(Text, cells))
    return table
