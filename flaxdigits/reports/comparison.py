"""The table of `--mode=compare`: a row for each run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flaxdigits.config import flatten
from flaxdigits.reports.result import data_name
from flaxdigits.training.run_folder import RunFolder

MAX_FIELDS = 5  # columns of config fields
METRICS = {  # the heading and format of fields of `result.json`
    "train_accuracy": ("train\naccuracy", "{:.3%}"),
    "validation_accuracy": ("validation\naccuracy", "{:.3%}"),
    "test_accuracy": ("test\naccuracy", "{:.3%}"), "test_loss": ("test\nloss", "{:.4f}"),
    "steps_per_second": ("steps/s", "{:.1f}")}
SHOWN_ELSEWHERE = {"experiment", "seed", "data.dataset", "data.folder", "data.split"}


def comparison_table(runs: Sequence[RunFolder | str | os.PathLike[str]]) -> Table:
    """Returns a table with a row for each run, whose title states what all runs have in common.

    The columns are the properties and config fields that differ between the runs, and the metrics.
    A run is named by the last parts of the path of its folder.

    Raises:
      FlaxdigitsError: if a folder is not a run folder.
    """
    folders = [RunFolder.of(run) for run in runs]
    names = _short_names([folder.path for folder in folders])
    labels, facts, results, configs = [], [], [], []
    for folder in folders:
        result, run = folder.result() or {}, folder.recorded()
        config = flatten(run["config"])
        state = ("" if result else " (diverged)" if folder.diverged() is not None else
                 " (being extended)" if run.get("extended_at") else " (unfinished)")
        labels.append(names[folder.path] + state)
        facts.append(_facts(result, config, run["data"]))
        results.append(result)
        configs.append(config)
    common = {name: values[0] for name, values in _columns(facts).items()
              if len(set(values)) == 1 and values[0] != "-"}
    differing = _differing_fields(configs)
    title = ", ".join(f"{name} {value}" for name, value in common.items())
    more = list(differing)[MAX_FIELDS:]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
                  title=Text(title) if title else None, title_justify="left", title_style="",
                  caption=Text(f"Also different: {', '.join(more)}.") if more else None,
                  caption_justify="left")
    columns = {name: values for name, values in _columns(facts).items() if name not in common}
    columns |= {name: differing[name] for name in list(differing)[:MAX_FIELDS]}
    for name, (heading, form) in METRICS.items():
        values = [result.get(name) for result in results]
        if any(value is not None for value in values):
            columns[heading] = ["-" if value is None else form.format(value) for value in values]
    table.add_column("run", overflow="fold")
    for name in columns:
        table.add_column(Text(name), justify="right", overflow="fold", no_wrap="\n" in name)
    for label, *cells in zip(labels, *columns.values(), strict=True):
        table.add_row(*map(Text, (label, *cells)))
    return table


def _facts(
    result: Mapping[str, Any], config: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the properties of a run by the name of their column; `-` for an unknown one."""
    def number(name: str) -> str:
        return f"{result[name]:,}" if name in result else "-"

    return {
        "experiment": str(config.get("experiment")),
        "data": data_name(data["dataset"], data["source"], config.get("data.folder")),
        "split": str(config.get("data.split")), "seed": str(config.get("seed")),
        "steps": number("steps"), "parameters": number("parameters"),
        "device": str(result.get("device", "-"))}


def _columns(rows: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _differing_fields(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns the value in each config of the fields that differ, by their shortest unique names.

    A config that lacks a field, since the field belongs to another component, has the value `-`.
    """
    values = {}
    for field in dict.fromkeys(field for config in configs for field in config):
        texts = [_text(config[field]) if field in config else "-" for config in configs]
        if field not in SHOWN_ELSEWHERE and len(set(texts) - {"-"}) > 1:
            values[field] = texts
    last = [field.rpartition(".")[2] for field in values]
    return {name if last.count(name) == 1 and name != "name" else field: texts
            for name, (field, texts) in zip(last, values.items(), strict=True)}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value)) or "none"
    if isinstance(value, dict):  # a component in a list
        return str(value.get("name", value))
    return "none" if value is None else str(value)


def _short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns the last parts of each path, as many as are needed to distinguish the paths."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    return {path: str(Path(*path.parts[-depth:])) for path in paths}
