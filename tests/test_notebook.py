"""The notebook runs from top to bottom, in few steps on small data."""

import re

import nbclient
import nbformat
import pytest
from conftest import ROOT

import flaxdigits

NOTEBOOK = ROOT / "experiments" / "colab.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_nothing_that_was_computed_is_kept_with_it(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_it_asks_for_the_real_experiment(notebook):
    settings = {}
    exec(parameters(notebook).source, settings)
    flaxdigits.experiment("chinese_cnn", *settings["overrides"], *settings["short"])
    assert len(settings["seeds"]) >= 2 and settings["source"] is None


def test_it_marks_the_one_line_that_colab_needs(notebook):
    assert "# FILL IN on Colab" in parameters(notebook).source.partition("source = None")[0]
    assert sum("FILL IN" in cell.source for cell in notebook.cells) == 2  # and where it is used


def parameters(notebook):
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return cell


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, environment, idx_folder, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    overrides = ["data.dataset=idx_files", f"data.folder={idx_folder}", "data.split=holdout",
                 "train.epochs=2", "train.batch_size=61", "model.filters=1,1,1", "model.dense=2"]
    parameters(notebook).source = (
        f"source, workdir, use_drive, overrides = None, 'runs', True, {overrides}\n"
        "seeds, short, pause_at = range(2), ['train.epochs=1'], 2\n")
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [one.text for one in outputs if one.get("name") == "stderr"] == []
    found = "".join(one.text for one in outputs if one.get("name") == "stdout")
    assert "complete at step 6: runs/chinese_cnn/result.json" in found
    assert "paused by train.stop_after, saved at step 2 of 3" in found
    assert re.search(r"batch norm +│ 2 +│ +\d+\.\d\d ± \d+\.\d\d", found), found
    shown = [one.data for one in outputs if "data" in one]
    assert sum("image/png" in data for data in shown) == 5  # the sheet, three figures, the study
    assert any("| batch norm | 2 | " in data.get("text/markdown", "") for data in shown)
    (bar, *_) = [data for data in shown if "<progress" in data.get("text/html", "")]
    # It was replaced as the run went on, and has a row for each of two epochs.
    assert "6 of 6 steps" in bar["text/html"] and bar["text/html"].count("<tr>") == 3
    assert any("<iframe srcdoc=" in data.get("text/html", "") for data in shown)
    run = flaxdigits.RunFolder(tmp_path / "runs" / "paused")
    assert run.result()["steps"] == 3
    assert (tmp_path / "runs" / "ablation" / "batch_norm" / "summary.json").is_file()
