"""What is printed: names as they are, whatever is in them, and tables that a pipe does not fold."""

import dataclasses
import json
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table

from flaxdigits.api.console import make_console, print_table
from flaxdigits.api.plan import plan_table
from flaxdigits.metrics import formats
from flaxdigits.reports.comparison import comparison_table
from flaxdigits.reports.data import class_table
from flaxdigits.reports.layers import Layer, layer_table
from flaxdigits.reports.markdown import table_line
from flaxdigits.reports.result import print_summary
from flaxdigits.reports.study import StudyReport
from flaxdigits.studies.ablation import VariantResult
from flaxdigits.studies.statistics import estimate
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]

NAME = "lr [high] :smile: a[/b] | c"


def study():
    return StudyReport(NAME, "test_accuracy", formats(()), {}, [
        VariantResult(NAME, {0: 0.5}, estimate([0.5]), None, None, True, (), {})])


def layers():
    return layer_table(NAME, [Layer((NAME,), NAME, (1,), 1, 1)])


def classes():
    return class_table([NAME], np.zeros(3, int), {NAME: np.arange(3)})


TABLES = {
    "study": lambda _: study().tables()[0][0], "layers": lambda _: layers(),
    "classes": lambda _: classes(),
    "plan": lambda _: plan_table({NAME: (None, ())}, (0,), None),
    "runs": lambda run: comparison_table([RunFolder(run)])}


@pytest.mark.parametrize("table", TABLES)
def test_names_stand_in_tables_as_they_are(table, finished_copy, capsys):
    name = NAME.replace("/", "")
    run = finished_copy.rename(finished_copy.parent / name)
    made = TABLES[table](run)
    expected = name if table == "runs" else NAME
    print_table(make_console(), made)
    assert expected in capsys.readouterr().out
    Console(width=200).print(made)  # as a notebook and a user's own console do
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a[/b]", "one [high]", "a :smile: b"])
def test_a_folder_is_printed_by_its_name(name, finished_copy, launch_here):
    run = finished_copy.rename(finished_copy.parent / name.replace("/", ""))
    done = launch_here("--mode=report", f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    assert f"all in one page: {run / 'report.html'}" in done.stdout
    missing = run / name
    made = launch_here("--mode=data", f"--workdir={missing}", "--experiment=mse_cnn",
                       *(f"--set=data.{field}" for field in (
                           "dataset=idx_files",
                           f"folder={RunFolder(run).config().data.folder}")))
    assert made.returncode == 0, made.stderr
    assert f"preview: {missing / 'figures' / 'data.png'}" in made.stdout


def test_tables_are_not_folded_in_a_pipe(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table(title="Of a pipe", caption="words " * 60)
    for _ in range(9):
        table.add_column("a heading that is long")
    table.add_row(*["cells with several words"] * 9)
    print_table(make_console(), table)
    lines = capsys.readouterr().out.splitlines()
    assert sum("several words" in line for line in lines) == 1
    assert max(map(len, lines)) < 300 and sum("words words" in line for line in lines) == 2


def test_summary_is_not_folded_in_a_pipe(launch, tmp_path):
    done = launch("--experiment=kaggle_cnn", "--mode=summary", cwd=tmp_path,
                  env={"COLUMNS": "40"})
    assert "(None, 28, 28, 32)" in done.stdout, done.stdout


def test_accuracy_intervals_are_clipped_to_0_and_100_percent(capsys):
    figures = {f"{split}_accuracy": dataclasses.asdict(estimate(values)) for split, values in (
        ("train", [0.99, 0.9]), ("validation", [0.5, 0.51]), ("test", [0.08, 0.13]))}
    print_summary(make_console(), {"metrics": figures, "diverged": {}})
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"interval \d+\.\d\d to 100\.00 %", lines[0])
    assert re.search(r"interval 44\.15 to 56\.85 %", lines[1])
    assert re.search(r"interval 0\.00 to \d+\.\d\d %", lines[2])


def test_cells_of_markdown_are_escaped():
    assert table_line(["a|b", "c"]) == r"| a\|b | c |"
    line = next(line for line in study().markdown().splitlines() if "50.00" in line)
    assert line.startswith("| lr [high] :smile: a[/b] \\| c | 1 | 50.00 |")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux")
@pytest.mark.parametrize("flags", [(), ("--format=json",), ("--figure",)])
def test_names_that_are_not_unicode_are_printed(flags, finished_copy, launch, tmp_path):
    folder = os.fsencode(tmp_path / "images")
    os.mkdir(folder)
    picture = Image.new("L", (100, 100), 230)
    picture.paste(30, (20, 40, 80, 52))
    picture.save(tmp_path / "a.png")
    name = os.path.join(folder, b"caf\xe9.png")
    os.rename(tmp_path / "a.png", name)
    done = launch("--mode=predict", f"--workdir={finished_copy}",
                  f"--images={tmp_path / 'images' / '*.png'}", *flags)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert r"caf\udce9.png" in done.stdout
    if "--format=json" in flags:
        assert json.loads(done.stdout)[0]["file"] == os.fsdecode(name)
    if "--figure" in flags:
        assert (finished_copy / "figures" / "predictions.png").is_file()
