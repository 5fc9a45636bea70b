"""Studies: what is run and not run again, and what the table says."""

import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats
from test_training_resume import wait_for, without_clocks

from flaxdigits.metrics import formats
from flaxdigits.overrides import apply_overrides
from flaxdigits.reports.study import StudyReport
from flaxdigits.studies.ablation import VariantResult, compare_variants, compare_with_base
from flaxdigits.studies.statistics import estimate, paired_difference, unpaired_difference
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]

STUDY = '''"""Rates of a small network."""
from flaxdigits.studies.study import Study

def get_study():
    return Study(
        experiment="mse_cnn", seeds=(0, 1, 2), extra_metrics=("validation_loss",),
        overrides=("data.dataset=idx_files", "data.folder={folder}", "data.split=holdout",
                   "model.filters=4,4", "train.steps=18", "train.loss=cross_entropy",
                   "checkpoint.every_steps=2"),
        variants={{"fast": ("optimizer.learning_rate=0.1",),
                  "fatal": ("optimizer.learning_rate=1e30",),
                  "other images": ("data.split=random",)}})
'''


@pytest.fixture(scope="module")
def study(idx_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "rates.py"
    path.write_text(STUDY.format(folder=idx_folder))
    return path


@pytest.fixture(scope="module")
def ran(study, launch, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ran")
    completed = launch(f"--ablation={study}", f"--workdir={workdir}")
    assert completed.returncode == 0, completed.stderr
    return workdir, completed.stdout


@pytest.mark.slow
def test_the_table_matches_the_results_of_the_runs(ran):
    workdir, output = ran
    rows = {row["variant"]: row for row in json.loads((workdir / "study.json").read_text())["rows"]}
    assert list(rows) == ["base", "fast", "fatal", "other images"]

    def accuracies(variant):
        return [json.loads((workdir / variant / "seeds" / str(seed) / "result.json").read_text())[
            "validation_accuracy"] for seed in range(3)]

    base, fast = accuracies("base"), accuracies("fast")
    assert len(set(np.subtract(fast, base))) > 1
    expected = stats.ttest_rel(fast, base)
    assert rows["fast"]["difference"]["p"] == pytest.approx(expected.pvalue)
    assert rows["fast"]["p_holm"] == rows["fast"]["difference"]["p"]  # the only test
    assert rows["fast"]["difference"]["mean"] == pytest.approx(np.mean(fast) - np.mean(base))
    assert rows["base"]["estimate"]["mean"] == pytest.approx(np.mean(base))
    assert rows["fatal"]["diverged"] == [0, 1, 2] and rows["fatal"]["estimate"] is None
    losses = [json.loads((workdir / "fast" / "seeds" / str(seed) / "result.json").read_text())[
        "validation_loss"] for seed in range(3)]
    fast_loss = rows["fast"]["extra_metrics"]["validation_loss"]
    assert fast_loss["mean"] == pytest.approx(np.mean(losses))
    assert rows["other images"]["difference"]["p"] is None
    assert rows["other images"]["difference"]["low"] is not None

    markdown = (workdir / "study.md").read_text()
    assert markdown.startswith("# Rates of a small network\n")
    assert re.search(r"\| fast \| 3 \| \d+\.\d\d ± \d+\.\d\d \| [+-]\d+\.\d\d \[", markdown)
    assert re.search(r"\| fatal \| 0 \| - \(3 diverged\) \|( - \|){4}", markdown)
    loss = f"{np.mean(losses):.4g} ± {np.std(losses, ddof=1):.4g}"
    assert re.search(rf"\| fast \| .* \| {loss} \|\n", markdown)
    for text in ("`python launch.py --ablation=", "seeds: 0, 1, 2", " (idx_files), split ",
                 "JAX 0.", "Welch", "corrected for 1 test.",
                 "3 of the recipe's 20 epochs in batches"):
        assert text in markdown
    table = list(csv.DictReader((workdir / "study.csv").read_text().splitlines()))
    assert float(table[1]["mean"]) == rows["fast"]["estimate"]["mean"]
    assert float(table[1]["validation_loss_mean"]) == rows["fast"]["extra_metrics"][
        "validation_loss"]["mean"]
    assert table[2]["diverged"] == "0 1 2"
    assert Image.open(workdir / "study.png").size[0] > 500
    assert "fast, seed 2: accuracy train" in output and "fatal, seed 0: diverged" in output


@pytest.mark.parametrize(("base", "message"), [((0.5, 0.6, 0.7), None), ((0.5, 0.6), "2 pairs")])
def test_pairs_are_counted_if_the_base_lacks_seeds(base, message):
    values = [0.6, 0.8, 0.9]
    rows = [VariantResult("base", dict(enumerate(base)), estimate(base), None, None, True, (), {}),
            VariantResult("wide", dict(enumerate(values)), estimate(values),
                paired_difference(values[:len(base)], base), None, True, (), {})]
    report = StudyReport("Width", "test_accuracy", formats(()), {}, rows)
    terminal = io.StringIO()
    ((table, _),) = report.tables()
    Console(file=terminal, width=200).print(table)
    for text in (report.markdown(), terminal.getvalue()):
        assert ("pairs" in text.split("Means")[0]) == (message is not None)
        assert message is None or f"], {message} " in text
    assert ("over the remaining pairs" in report.markdown()) == (message is not None)
    line = list(csv.DictReader(report.csv().splitlines()))[1]
    assert (line["n"], line["pairs"]) == ("3", str(len(base)))


@pytest.mark.parametrize(("base", "values", "note"), [
    ((0.5, 0.6), (0.5, 0.6),
     "Same test accuracy as the base with every seed: wide. What is varied may have no effect "
     "on this metric."),
    ((0.5, 0.6), (0.6, 0.7),
     "Same difference from the base with every seed: wide. The seed may have no effect."),
    ((0.5, 0.6), (0.5, 0.7), None), ((0.5,), (0.6, 0.7), None)])
def test_variants_that_differ_by_the_same_for_every_seed_are_noted(base, values, note):
    rows = compare_with_base([
        VariantResult(name, dict(enumerate(found)), estimate(found), None, None, True, (), {})
        for name, found in (("base", base), ("wide", values))])
    report = StudyReport("Width", "test_accuracy", formats(()), {}, rows)
    ((_, notes),) = report.tables()
    for text in (report.markdown(), "\n".join(notes)):
        assert ("Same " in text) == (note is not None) and (note is None or note in text)


@pytest.mark.slow
def test_finished_runs_are_not_run_again(ran, study, launch_here):
    workdir, _ = ran
    config_file = workdir / "base" / "seeds" / "0" / "config.json"
    recorded = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(recorded | {"machine": "A computer"}))
    kept = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")
            if path.is_file() and path.name in ("result.json", "diverged.json", "metrics.jsonl")}
    completed = launch_here(f"--ablation={study}", f"--workdir={workdir}")
    assert completed.returncode == 0, completed.stderr
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert "hardware: A computer, JAX" in (workdir / "study.md").read_text()  # where it was run
    plan = launch_here(f"--ablation={study}", f"--workdir={workdir}", "--dry_run")
    assert plan.returncode == 0 and re.search(r"fast +│ 3 +│ - +│ +0 s", plan.stdout), plan.stdout
    for dry_run in ([], ["--dry_run"]):
        other = launch_here(f"--ablation={study}", f"--workdir={workdir}",
                            "--set=train.batch_size=4", *dry_run)
        assert other.returncode == 2 and "train.batch_size was 32 and is 4" in other.stderr
        assert other.stdout == ""


@pytest.mark.slow
def test_a_killed_and_restarted_study_gives_the_same_table(ran, study, start, launch, tmp_path):
    process = start(f"--ablation={study}", f"--workdir={tmp_path}")
    wait_for((tmp_path / "fast" / "seeds" / "1" / "checkpoints").exists, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "study.json").exists()
    ended = {path: path.stat().st_mtime_ns for seed in range(3)
             for path in [tmp_path / "base" / "seeds" / str(seed) / "result.json"]}
    completed = launch(f"--ablation={study}", f"--workdir={tmp_path}")
    assert completed.returncode == 0, completed.stderr
    assert ended == {path: path.stat().st_mtime_ns for path in ended}
    ours, theirs = (json.loads((folder / "study.json").read_text())["rows"]
                    for folder in (tmp_path, ran[0]))
    assert ours == theirs


def test_a_dry_run_lists_the_runs_with_their_time_and_writes_nothing(study, launch_here, tmp_path):
    completed = launch_here(f"--ablation={study}", f"--workdir={tmp_path / 'a'}", "--dry_run",
                            "--seeds=3..4")
    assert completed.returncode == 0 and completed.stderr == ""
    assert "4 variants of mse_cnn, 2 seeds, 8 runs" in completed.stdout
    for variant in ("base", "fast", "fatal", "other images"):
        assert re.search(rf"{variant} +│ 0 +│ 3, 4 +│ +\d+ s", completed.stdout), completed.stdout
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "unknown": (["--ablation=dense_cn"], "did you mean dense_cnn"),
    "no file": (["--ablation=mine.py"], "ablation: there is no file mine.py"),
    "with a mode": (["--ablation=dense_cnn", "--mode=eval"], "leave out --experiment and --mode"),
    "dry run of nothing": (["--experiment=mse_cnn", "--dry_run"], "--dry_run is only for"),
    "trace": (["--ablation=dense_cnn", "--profile"], "--profile is only for"),
    "events": (["--ablation=dense_cnn", "--notensorboard"], "got --ablation"),
    "bad override": (["--ablation=dense_cnn", "--set=train.epoch=1"], "did you mean train.epochs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_studies_are_reported_in_one_line(case, launch_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = REFUSED[case]
    completed = launch_here(*arguments)
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert message in completed.stderr
    assert list(tmp_path.iterdir()) == []


LATE = """
from flaxdigits.studies.study import Study

def get_study():
    return Study("dense_cnn", overrides=("data.split=holdout",), variants={{
        "slow": ("train.epochs=2",), "late": ({change!r},)}})
"""


@pytest.mark.parametrize(("change", "message"), [
    ("optimizer.warmup_steps=40", "variant 'late': optimizer.schedule.warmup_steps must be below"),
    ("train.epochs=2000000000", "variant 'late': train.epochs=2000000000 gives"),
    ("model.filters=4,4,4,4,4", "variant 'late': MaxPool_4 needs an input of at least 2x2 pixels"),
])
def test_a_variant_that_does_not_fit_the_data_is_an_error_before_any_run(
    change, message, launch_here, idx_folder, tmp_path
):
    (tmp_path / "late.py").write_text(LATE.format(change=change))
    completed = launch_here(
        f"--ablation={tmp_path / 'late.py'}", "--set=data.dataset=idx_files",
        "--set=train.epochs=1", f"--set=data.folder={idx_folder}",
        f"--workdir={tmp_path / 'run'}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert message in completed.stderr
    assert not (tmp_path / "run").exists()


def test_the_experiment_of_a_study_is_executed_once(write, launch_here, idx_folder, tmp_path):
    write("""
        from pathlib import Path
        from flaxdigits.experiments import load_experiment

        with open(Path(__file__).with_name("executed"), "a") as file:
            file.write("x")

        def get_config():
            return load_experiment("dense_cnn")
    """)
    (tmp_path / "late.py").write_text(
        LATE.format(change="train.epochs=3").replace("dense_cnn", "mine.py"))
    completed = launch_here(
        f"--ablation={tmp_path / 'late.py'}", "--set=data.dataset=idx_files", "--dry_run",
        f"--set=data.folder={idx_folder}", f"--workdir={tmp_path / 'run'}")
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "executed").read_text() == "x"


GRID = """
from flaxdigits.studies.study import Study

def get_study():
    return Study("mse_cnn", seeds=(0,), overrides=(
        "data.dataset=idx_files", "data.folder={folder}", "data.split=holdout",
        "model.filters=4,4", "train.steps=2"), grid={{"optimizer.momentum": (0.0, 0.9)}})
"""


@pytest.mark.slow
def test_a_study_of_an_earlier_version_is_found_and_resumed(launch_here, idx_folder, tmp_path):
    (tmp_path / "grid.py").write_text(GRID.format(folder=idx_folder))
    workdir = tmp_path / "run"
    command = (f"--ablation={tmp_path / 'grid.py'}", f"--workdir={workdir}")
    completed = launch_here(*command)
    assert completed.returncode == 0, completed.stderr
    (workdir / "momentum_0.9").rename(workdir / "momentum=0.9")
    old = workdir / "momentum=0.9" / "seeds" / "0"
    before = (old / "result.json").stat().st_mtime_ns
    table = (workdir / "study.json").read_text()
    completed = launch_here(*command)
    assert completed.returncode == 0, completed.stderr
    assert (workdir / "study.json").read_text() == table
    assert (old / "result.json").stat().st_mtime_ns == before
    (old / "result.json").unlink()
    completed = launch_here(*command)
    assert completed.returncode == 0 and (old / "result.json").is_file(), completed.stderr
    assert not (workdir / "momentum_0.9").exists()


def test_a_study_is_resumed_without_its_initial_weights(
    study, finished, launch_here, tmp_path
):
    weights = shutil.copytree(finished, tmp_path / "weights")
    recipe = (f"--ablation={study}", "--seeds=0", f"--workdir={tmp_path / 'run'}", "--dry_run",
              f"--set=train.init_from={weights}")
    shutil.rmtree(weights)
    assert "weights: not a run folder" in launch_here(*recipe).stderr
    for variant in ("base", "fast", "fatal", "other_images"):
        RunFolder(tmp_path / "run" / variant / "seeds" / "0").write_json("config.json", {})
    assert "config.json: missing required field config" in launch_here(*recipe).stderr


def test_a_metric_that_no_run_has_is_an_error_before_any_run(study, launch_here, tmp_path):
    completed = launch_here(
        f"--ablation={study}", "--set=data.split=official", f"--workdir={tmp_path / 'run'}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert "data.split=official has no validation part" in completed.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_returns_no_study_is_an_error(launch_here, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("def get_study():\n    return 3\n")
    completed = launch_here(f"--ablation={path}")
    assert "get_study() must return a Study, got int" in completed.stderr


def test_scoring_on_other_input_trains_the_same_weights(train_tiny, finished, tmp_path):
    outcome = train_tiny(tmp_path / "raw", "evaluate.preprocessing=raw")
    expected = json.loads((finished / "result.json").read_text())
    found = without_clocks(outcome.result)
    assert found["train_accuracy_running"] == expected["train_accuracy_running"]
    assert found["test_loss"] != expected["test_loss"]


@pytest.mark.slow
def test_only_paired_differences_need_the_same_seeds(tiny_config, train_tiny, tmp_path):
    configs = {"base": tiny_config, "same": apply_overrides(tiny_config, ["train.ema_decay=0.9"]),
               "other": apply_overrides(tiny_config, ["data.split=random"])}
    for variant, seeds in (("base", (0, 1)), ("same", (2,)), ("other", (2, 3))):
        for seed in seeds:  # the others of the four diverged, say
            setting = {"same": "train.ema_decay=0.9", "other": "data.split=random"}.get(variant)
            train_tiny(tmp_path / variant / "seeds" / str(seed), f"seed={seed}",
                       *([setting] if setting else []))
    rows = {row.variant: row for row in compare_variants(
        configs, range(4), tmp_path, "validation_accuracy")}
    assert rows["same"].difference is None and not rows["other"].is_paired
    base, other = (list(rows[variant].values.values()) for variant in ("base", "other"))
    assert rows["other"].difference == unpaired_difference(other, base)
