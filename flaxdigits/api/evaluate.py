"""Evaluates checkpoints of a run."""

from typing import Any

from rich.console import Console

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.experiment import moved_data, open_run
from flaxdigits.api.session import Session, Source
from flaxdigits.evaluation.checkpoints import evaluate_checkpoints
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.reports.result import evaluation_line, print_synthetic_data_notice, source_name


@pinned_settings()
def evaluate(
    workdir: PathLike, checkpoint: str | int = "last", *, experiment: PathLike | None = None,
    data: Source = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None, data_folder: PathLike | None = None,
    data_indices: PathLike | None = None, console: Console | None = None,
) -> list[dict[str, Any]]:
    """Evaluates checkpoints of a run on all its splits, and appends the metrics to `eval.jsonl`.

    Args:
      workdir: the run folder.
      checkpoint: `last`, `best` (by validation accuracy), `all`, or a step.
      experiment: the experiment file of the run, if it has custom components and the file with
        which it was trained is gone or has changed.
      data: `auto` for the source that the run was trained on; `real` to use the real data, even if
        the run was trained on synthetic data.
      raw_data_dir: See `train`.
      data_dir: See `train`.
      data_folder: the current folder of the custom data that the run was trained on; None: it has
        not moved.
      data_indices: the current path of the index file of the run; None: it has not moved.
      console: See `train`.

    Returns:
      A dictionary for every checkpoint: its `step`, and the metrics of each split, such as
      `test_accuracy`, which are None if the split does not exist.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint, a checkpoint is damaged, or the data
        are not found or differ from the data of the run.
    """
    folder, config = open_run(
        workdir, *moved_data(data_folder, data_indices), experiment=experiment)
    session = Session.start([config], console, data, raw_data_dir, data_dir)
    console = session.console
    trained_on = folder.data()["source"]
    dataset = session.load_for_run(config, folder)
    if dataset.source != trained_on:
        console.print(f"trained on {source_name(trained_on)} data, evaluated on "
                      f"{source_name(dataset.source)} data")
    print_synthetic_data_notice(console, dataset.source)
    rows = []
    for row in evaluate_checkpoints(config, dataset, folder, str(checkpoint), session.progress):
        console.print(evaluation_line(row))
        rows.append(row)
    return rows
