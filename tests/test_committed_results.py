"""The committed results of replications and studies match their commands and their tables."""

import ast
import io
import itertools
import json
import re
import shlex

import pytest
from absl.testing import flagsaver
from conftest import ROOT
from PIL import Image
from test_report import PROBE, browse  # noqa: F401

from flaxdigits.cli.context import parse_seeds
from flaxdigits.cli.options import parse
from flaxdigits.metrics import formats
from flaxdigits.reports.replication import (
    BEGIN,
    END,
    SUMMARY_BEGIN,
    SUMMARY_END,
    ReplicationReport,
    put_between_markers,
)
from flaxdigits.reports.replication_page import replication_page
from flaxdigits.reports.study import StudyReport
from flaxdigits.studies.ablation import VariantResult, compare_with_base
from flaxdigits.studies.collection import collect
from flaxdigits.studies.grid import grid_of
from flaxdigits.studies.replication import load_systems
from flaxdigits.studies.statistics import Estimate, estimate
from flaxdigits.studies.study import ABLATIONS, load_study, variants_of

pytest_plugins = ["tiny_run"]

RESULTS = str(ROOT / "experiments" / "results")
COMMAND = ("python launch.py --mode=replicate --update={} --collect=experiments/results "
           "--collect_only")
REPORT = "docs/replication.md"
TABLES = sorted((ABLATIONS / "results").glob("*.md"))


def parse_command(command):
    with flagsaver.flagsaver():
        return parse(shlex.split(command)[1:])


def study_report(name):
    """A study's report, created only from the committed values of its seeds."""
    found = json.loads((ABLATIONS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    variants = []
    for row in found["rows"]:
        values = {int(seed): value for seed, value in row["values"].items()}
        extra_metrics = {
            metric: Estimate(**value) for metric, value in row["extra_metrics"].items()}
        variants.append(VariantResult(
            row["variant"], values, estimate(list(values.values())), None, None, row["is_paired"],
            tuple(row["diverged"]), extra_metrics))
    variants, study = compare_with_base(variants), load_study(name)
    return StudyReport(
        found["title"], found["metric"], formats(()), found["about"], variants,
        grid_of(study, variants_of(study)))


def is_picture(file):
    return Image.open(io.BytesIO(file)).width > 500


@pytest.mark.parametrize("path", TABLES, ids=[path.stem for path in TABLES])
def test_the_committed_tables_match_the_committed_values(path):
    files = study_report(path.stem).files()
    committed = {found.name for found in path.parent.glob(f"{path.stem}.*")}
    assert committed == {name.replace("study", path.stem) for name in files}
    for name, content in files.items():
        found = path.with_name(name.replace("study", path.stem)).read_bytes()
        if name.endswith(".md"):
            content = content.replace(b"(study.", f"({path.stem}.".encode())
        assert found == content if not name.endswith(".png") else is_picture(found), name


def test_the_claim_contains_the_results_of_keras():
    found = json.loads((ROOT / "experiments" / "originals" / "dense_cnn.json").read_text())
    epochs = [[f"{100 * accuracy:.2f}" for accuracy in history["test_accuracy"]]
              for history in found["seeds"].values()]
    ends = [of_seed[-1] for of_seed in epochs]
    every = sorted(itertools.chain.from_iterable(epochs), key=float)
    (dense,) = (system for system in load_systems() if system.name == "dense_cnn")
    claim = dense.replication.claims[0]
    versions = [found["versions"][name].rsplit(".", 1)[0] for name in ("keras", "tensorflow")]
    stated = set(re.findall(r"\d+(?:\.\d+)?", claim.why))
    assert {*ends, str(len(ends)), str(len(every)), every[0], every[-1], *versions} <= stated


@pytest.mark.parametrize("path", TABLES, ids=[path.stem for path in TABLES])
def test_the_committed_tables_are_those_of_the_built_in_studies(path):
    text = path.read_text(encoding="utf-8")
    (command,) = re.findall(r"^- command: `(.*)`$", text, re.MULTILINE)
    options = parse_command(command)
    assert options.command == "ablation" and options.ablation == path.stem
    found = ast.get_docstring(ast.parse((ABLATIONS / f"{path.stem}.py").read_text()))
    (found,) = re.findall("^    (python launch.*)$", found.replace("\\\n", ""), re.MULTILINE)
    assert parse_command(found) == options
    study = load_study(path.stem)
    base = " ".join([study.experiment, *study.overrides, *options.overrides])
    assert f"\n- base: {base}\n" in text
    table = [re.split(r"(?<!\\) ?\| ?", line)[1:-1]
             for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    rows = {row[0].replace("\\|", "|"): int(row[1]) for row in table[2:]}
    configs = variants_of(study, options.overrides)
    grid = grid_of(study, configs)
    assert list(rows) == list(map(grid.label, configs))
    seeds = study.seeds if options.seeds is None else parse_seeds(options.seeds)
    assert rows[grid.label("base")] == len(seeds)
    assert f"\n- seeds: {', '.join(map(str, seeds))}\n" in text
    assert "(real)" in text


def test_only_tables_are_committed():
    assert TABLES
    assert {path.name.partition(".")[0] for path in (ABLATIONS / "results").iterdir()} == {
        path.stem for path in TABLES}


def committed():
    """The report of the committed files."""
    systems = load_systems()
    return ReplicationReport(systems, collect(systems, [RESULTS]), COMMAND.format(REPORT))


@pytest.mark.parametrize("page", ["README.md", REPORT])
def test_the_pages_hold_the_tables_of_the_committed_results(page):
    text, report = (ROOT / page).read_text(encoding="utf-8"), committed()
    assert put_between_markers(text, report.block(), report.summary()) == text, (
        f"run: {COMMAND.format(page)}")
    assert report.collection.skipped == {}
    assert {system.name for system in report.systems} == {
        "chinese_cnn", "mnist_cnn", "mse_cnn", "kaggle_cnn", "dense_cnn"}


@pytest.mark.parametrize("page", ["README.md", REPORT])
def test_the_pages_are_updated_by_their_command(page, launch_here, tmp_path, monkeypatch):
    text = (ROOT / page).read_text(encoding="utf-8")
    path = tmp_path / page
    path.parent.mkdir(exist_ok=True)
    begin, end = (SUMMARY_BEGIN, SUMMARY_END) if page == "README.md" else (BEGIN, END)
    before, after = text.partition(begin)[0], text.partition(end)[2]
    path.write_text(f"{before}{begin}\n{end}{after}")
    assert len(path.read_text()) < len(text) - 500
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "results").symlink_to(RESULTS)
    monkeypatch.chdir(tmp_path)
    completed = launch_here(*shlex.split(COMMAND.format(page))[2:])
    assert completed.returncode == 0, completed.stderr
    assert path.read_text() == text


def test_committed_results_contain_no_paths_and_no_timings():
    for _, record in committed().collection.records():
        text = record.file().decode()
        assert record.path.read_text() == text
        assert not re.search(r'"/|seconds|"[A-Z]:\\\\', text), record.path


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_fits_its_window(width, browse, tmp_path):  # noqa: F811
    page = replication_page(committed())
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width, page=json.dumps(page).replace("</", "<\\/")))
    found = json.loads(re.search("<title>(.*)</title>", browse(probe, 1300, "--dump-dom")).group(1))
    assert found["wide"] == width and found["needed"] <= width, found
    assert found["broken"] == 0 and found["shown"] == 6, found
