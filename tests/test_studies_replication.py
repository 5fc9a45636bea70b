"""Replications: training, collecting and reporting."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import ROOT
from rich.console import Console
from test_report import Page

import flaxdigits
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.replication import (
    BEGIN,
    END,
    SUMMARY_BEGIN,
    SUMMARY_END,
    put_between_markers,
)
from flaxdigits.studies.collection import collect, missing_seeds
from flaxdigits.studies.replication import load_systems

pytest_plugins = ["tiny_run"]

RESULTS = str(ROOT / "experiments" / "results")
SYSTEM = '''"""A small system of which much is claimed."""
from flaxdigits.config import *
from flaxdigits.studies.replication import Claim, Replication
from flaxdigits.optimizers import Adam

def get_config():
    return ExperimentConfig(
        "small", ModelConfig("dense_cnn", filters=(2,), dense=(8,)),
        DataConfig(dataset="idx_files", folder="{folder}", split="random"),
        Adam(learning_rate=0.1),
        TrainConfig(batch_size=50, steps=6))

def get_replication():
    return Replication("A <i>paper</i>", held_out=("data.split=holdout",), claims=(
        Claim("validation_accuracy", 0.999, why="It was a | dream.",
              extra_metrics=("train_accuracy",)),))
'''


@pytest.fixture(scope="module")
def small(idx_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("system") / "small.py"
    path.write_text(SYSTEM.format(folder=idx_folder))
    return path


@pytest.fixture
def replicate(launch_here, small, monkeypatch, tmp_path):
    """Runs the mode on the small system, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: launch_here("--mode=replicate", f"--experiment={small}", *arguments)


@pytest.fixture(scope="module")
def ran(launch, small, tmp_path_factory):
    """The folder of a whole replication with two seeds; not to be changed."""
    workdir = tmp_path_factory.mktemp("ran") / "all"
    completed = launch("--mode=replicate", f"--experiment={small}", "--seeds=0..1",
                       f"--workdir={workdir}")
    assert completed.returncode == 0 and completed.stderr == "", completed.stderr
    return workdir


def read(path):
    return json.loads(path.read_text())


def rows(workdir):
    return read(workdir / "replication.json")["rows"]


def change(path, **fields):
    """Changes `a__b` of a JSON file."""
    values = read(path)
    for name, value in fields.items():
        *way, last = name.split("__")
        place = values
        for step in way:
            place = place[step]
        place[last] = value
    path.write_text(json.dumps(values))


def test_both_protocols_are_run_and_reported(ran):
    of_seed = {protocol: [read(ran / "small" / protocol / "seeds" / seed / "result.json")
                          for seed in "01"] for protocol in ("original", "held_out")}
    assert {run["split"] for run in of_seed["original"]} == {"random"}
    assert {run["split"] for run in of_seed["held_out"]} == {"holdout"}
    found = {}
    for protocol, metric in (("original", "validation_accuracy"), ("original", "train_accuracy"),
                             ("held_out", "test_accuracy")):
        values = 100 * np.array([run[metric] for run in of_seed[protocol]])
        found[metric] = f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"
    markdown = (ran / "replication.md").read_text()
    assert (f"| `small` | validation 99.90 | validation {found['validation_accuracy']}, training "
            f"{found['train_accuracy']} (2 seeds) | test {found['test_accuracy']} (2 seeds) |"
            ) in markdown
    away = rows(ran)[0]["reproduced"]["metrics"]["validation_accuracy"]["mean"] - 0.999
    assert re.search(rf"{100 * abs(away):.2f}\s+points\s+below\s+the\s+claim", markdown)
    assert re.search(r"It was\s+a\s+\| dream\.", markdown) and re.search(
        r"With\s+held-out\s+images\s+\(data\.split=holdout\)\s+the\s+accuracy\s+is", markdown)
    assert re.search(r"4\s+runs\s+on\s+\S.* cores?,\s+JAX\s+\d", markdown)


def test_the_page_has_the_same_content_and_escapes_it(ran):
    page = Page((ran / "replication.html").read_text())
    assert "A <i>paper</i>" in page.text and "i" not in page.tags and "script" not in page.tags
    assert page.tags.count("img") == 2
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    for seed in "01":
        found = read(ran / "small" / "held_out" / "seeds" / seed / "result.json")
        assert f"{100 * found['test_accuracy']:.2f}" in page.text


def test_its_small_files_give_the_same_table(ran, replicate, tmp_path):
    completed = replicate(
        f"--collect={ran / 'results'}", "--collect_only", f"--workdir={tmp_path / 'a'}")
    assert completed.returncode == 0 and completed.stderr == "", completed.stderr
    assert rows(tmp_path / "a") == rows(ran)
    kept = {path.name: path.read_text() for path in (ran / "results" / "small").iterdir()}
    assert len(kept) == 4 and not any("seconds" in text for text in kept.values())
    assert kept == {path.name: path.read_text()
                    for path in (tmp_path / "a" / "results" / "small").iterdir()}


def test_finished_runs_are_not_run_again(ran, replicate, tmp_path):
    (tmp_path / "runs").mkdir()
    shutil.copytree(ran / "small" / "original" / "seeds" / "1", tmp_path / "runs" / "mine")
    completed = replicate("--seeds=0..1", "--set=train.steps=1")
    assert completed.returncode == 0, completed.stderr
    assert "small, original: to run: seed 0, on" in completed.stdout
    assert "small, held_out: to run: seeds 0, 1, on" in completed.stdout
    own, = rows(tmp_path / "runs" / "replicate")
    assert own["reproduced"]["seeds"] == [1] and own["reproduced"]["partial"] is None
    assert own["held_out"]["partial"] == "1 of 6 steps"
    again = replicate("--seeds=0..1", "--set=train.steps=1")
    assert "to run" not in again.stdout and rows(tmp_path / "runs" / "replicate") == [own]


def test_partial_runs_are_reported_as_partial(ran, replicate, tmp_path):
    completed = replicate("--seeds=0", "--set=train.steps=2", "--set=data.limit=60",
                          f"--workdir={tmp_path / 'a'}")
    assert completed.returncode == 0, completed.stderr
    partial = "partial: 2 of 6 steps, 60 training images"
    for name in ("replication.md", "replication.html"):
        text = " ".join((tmp_path / "a" / name).read_text().split())
        assert text.count(f"({partial}, 1 seed)") == 2, name
        assert "which is not conclusive" in text and "With held-out images" not in text
    both = replicate(f"--collect={ran}", f"--collect={tmp_path / 'a' / 'small'}", "--collect_only",
                     f"--workdir={tmp_path / 'b'}")
    assert rows(tmp_path / "b") == rows(ran)
    assert both.stdout.count("is partial, and other runs have more steps or data") == 2


@pytest.mark.slow
def test_partial_replications_of_different_lengths_coexist(replicate, tmp_path):
    for settings, left in (
            (["train.steps=2"], "2 of 6 steps"),
            (["train.steps=3", "data.limit=60"], "3 of 6 steps, 60 training images"), ([], None)):
        arguments = ["--seeds=0", *(f"--set={setting}" for setting in settings)]
        plan = replicate(*arguments, "--dry_run")
        assert re.search(r"small, original +│ 0 +│ 0 +│", plan.stdout), plan.stdout
        completed = replicate(*arguments)
        assert completed.returncode == 0, completed.stderr
        assert rows(tmp_path / "runs" / "replicate")[0]["reproduced"]["partial"] == left
    folders = {path.name for path in (tmp_path / "runs" / "replicate" / "small").iterdir()}
    assert folders == {f"{protocol}{extent}" for protocol in ("original", "held_out") for extent in
                       ("", ",steps=2", ",steps=3,limit=60")}


def test_a_dry_run_reports_another_run_in_the_folder(replicate, tmp_path):
    arguments = "--seeds=0", f"--workdir={tmp_path / 'a'}"
    completed = replicate(*arguments, "--set=train.stop_after=3", "--set=train.log_every=2")
    assert completed.returncode == 0, completed.stderr
    for dry_run in ([], ["--dry_run"]):
        completed = replicate(*arguments, *dry_run)
        assert completed.returncode == 2 and "train.log_every was 2 and is 100" in completed.stderr


def test_a_paused_replication_is_resumed(ran, replicate, tmp_path):
    arguments = "--seeds=0..1", f"--workdir={tmp_path / 'a'}"
    completed = replicate(*arguments, "--set=train.stop_after=3")
    assert completed.returncode == 0, completed.stderr
    assert "paused by train.stop_after" in completed.stdout
    assert "not run" in (tmp_path / "a" / "replication.md").read_text()
    completed = replicate(*arguments)
    assert completed.returncode == 0, completed.stderr
    assert rows(tmp_path / "a") == rows(ran)


@pytest.mark.parametrize("field", ["data__source", "result__data_source"])
def test_runs_on_synthetic_data_never_count(field, ran, replicate, tmp_path):
    shutil.copytree(ran / "results", tmp_path / "some")
    change(tmp_path / "some" / "small" / "original-seed0.json", **{field: "drawn"})
    completed = replicate("--collect=some", "--collect_only")
    assert ("original-seed0.json: was trained on synthetic data instead of the real data"
            in completed.stdout)
    assert rows(tmp_path / "runs" / "replicate")[0]["reproduced"]["seeds"] == [1]


NOT_COUNTED = {
    "another recipe": ({"config__optimizer__learning_rate": 0.2},
                       "optimizer.learning_rate is 0.2 instead of 0.1"),
    "another fold": ({"config__data__split_seed": 1}, "data.split_seed is 1 instead of 0"),
    "impossible": ({"result__validation_accuracy": 1.5}, "must be a number from 0 to 1, got 1.5"),
    "not a number": ({"result__validation_accuracy": float("nan")},
                     "in result: validation_accuracy must be a number from 0 to 1, got nan"),
    "longer": ({"result__steps": 60, "config__train__steps": 60}, "60 steps instead of 6"),
    "no place": ({"machine": ["/home"]}, "machine must be a string, got ['/home']"),
    "no steps": ({"result__steps": None},
                 "in result: steps must be a positive integer, got None"),
    "another seed": ({"result__seed": 7}, "its result is of another seed"),
    "unknown field": ({"config__train__magic": 1}, "unknown field train.magic"),
    "no result": ({"result": None}, "expected the field result or diverged"),
}


@pytest.mark.parametrize("case", NOT_COUNTED)
def test_other_runs_do_not_count(case, ran, replicate, tmp_path):
    fields, message = NOT_COUNTED[case]
    shutil.copytree(ran / "results", tmp_path / "some")
    change(tmp_path / "some" / "small" / "original-seed0.json", **fields)
    completed = replicate("--collect=some", "--collect_only")
    assert completed.returncode == 0 and message in completed.stdout, completed.stdout
    assert rows(tmp_path / "runs" / "replicate")[0]["reproduced"]["seeds"] == [1]


def test_a_dry_run_lists_what_is_missing_and_writes_nothing(ran, replicate, tmp_path):
    completed = replicate(
        f"--collect={ran / 'results' / 'small' / 'held_out-seed*'}", "--seeds=0..1", "--dry_run")
    assert completed.returncode == 0, completed.stderr
    assert re.search(r"small, original +│ 0 +│ 0, 1 +│ +\d+ s", completed.stdout), completed.stdout
    assert re.search(r"small, held_out +│ 2 +│ - +│ +0 s", completed.stdout), completed.stdout
    assert list(tmp_path.iterdir()) == []


def test_diverged_seeds_are_reported(ran, small, replicate, tmp_path):
    run = shutil.copytree(ran / "small" / "original" / "seeds" / "1", tmp_path / "runs" / "one")
    (run / "result.json").unlink()
    (run / "diverged.json").write_text(json.dumps({"step": 3, "message": "the loss is nan"}))
    shutil.copytree(ran / "small" / "original" / "seeds" / "0", tmp_path / "runs" / "zero")
    completed = replicate("--collect_only")
    assert completed.returncode == 0, completed.stderr
    assert "(1 seed, 1 diverged)" in (tmp_path / "runs/replicate/replication.md").read_text()
    systems = load_systems(str(small))
    runs = collect(systems, [str(tmp_path / "runs")]).runs["small"]["original"]
    assert missing_seeds(runs, runs.recipe, (0, 1, 2)) == [2]


def test_other_data_are_refused(ran, replicate, tmp_path):
    shutil.copytree(ran / "results", tmp_path / "some")
    change(tmp_path / "some" / "small" / "original-seed0.json", data__fingerprint="0")
    completed = replicate("--collect=some", "--collect_only")
    assert completed.returncode == 2 and "their fingerprints differ" in completed.stderr


REFUSED = {
    "synthetic": (["--data=synthetic"], "the published results are for the real data"),
    "changed": (["--set=optimizer.learning_rate=1"],
                "recipe of small, but optimizer.learning_rate is 1.0 instead of 0.1"),
    "a seed": (["--set=seed=7"], "a replication trains several seeds: set them"),
    "nothing there": (["--collect=nowhere/*"], "collect=nowhere/*: no file or folder matches"),
    "no file": (["--update=no.md"],
                "no.md: cannot read: No such file or directory; name a file that exists and is "
                "readable"),
    "no markers": (["--update=empty.md"], "empty.md: expected one line <!-- replication: begin"),
    "no claims": (["--experiment=other.py"], "other.py: has no get_replication()"),
    "wrong mode": (["--mode=train", "--collect=runs"], "--collect is only for --mode=replicate"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_requests_are_one_line(case, replicate, tmp_path):
    (tmp_path / "empty.md").write_text("nothing\n")
    (tmp_path / "other.py").write_text("def get_config():\n    return None\n")
    arguments, message = REFUSED[case]
    completed = replicate(*arguments)
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert message in completed.stderr
    assert not (tmp_path / "runs").exists()


def test_changes_of_the_file_during_the_run_are_kept(ran, small, monkeypatch, tmp_path):
    text = tmp_path / "text.md"
    text.write_text(f"{BEGIN}\n{END}\n")
    calls = []

    def slow(systems, patterns):
        calls.append(patterns)
        if len(calls) == 2:  # after the runs
            text.write_text(f"written meanwhile\n{text.read_text()}")
        return collect(systems, patterns)

    monkeypatch.setattr("flaxdigits.studies.collection.collect", slow)
    odd = shutil.copytree(ran / "results", tmp_path / "x[1]")  # which is no pattern
    flaxdigits.replicate(small, collect=odd, collect_only=True, update=text,
                         workdir=tmp_path / "out", console=Console(quiet=True, markup=False))
    assert calls == [[str(odd)]] * 2
    assert text.read_text().startswith("written meanwhile\n") and "`small`" in text.read_text()


def test_both_pairs_of_markers_are_filled(ran, small, monkeypatch, tmp_path):
    text = tmp_path / "text.md"
    text.write_text(f"{SUMMARY_BEGIN}\nold\n{SUMMARY_END}\nbetween\n{BEGIN}\n{END}\n")
    flaxdigits.replicate(small, collect=ran / "results", collect_only=True, update=text,
                         workdir=tmp_path / "out", console=Console(quiet=True, markup=False))
    summary, block = text.read_text().split("between")
    assert summary.count("\n| `small` |") == 1 and "prediction interval" not in summary
    assert "old" not in summary
    assert block.count("\n| `small` |") == 1 and "prediction interval" in block


def test_markers_must_be_there_once():
    def filled(text):
        return put_between_markers(text, "new", "short")

    assert filled(f"a\n{BEGIN}\nold\n{END}\nz") == f"a\n{BEGIN}\nnew\n{END}\nz"
    assert filled(f"{SUMMARY_BEGIN}{SUMMARY_END}") == f"{SUMMARY_BEGIN}\nshort\n{SUMMARY_END}"
    for text in ("", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", SUMMARY_END,
                 f"{BEGIN}{END}{SUMMARY_BEGIN}", f"{BEGIN}{SUMMARY_END}"):
        with pytest.raises(FlaxdigitsError, match="expected one line"):
            filled(text)
