"""`import flaxdigits`: light, complete, and the same as the command line."""

import ast
import dataclasses
import inspect
import io
import json
import os
import subprocess
import sys

import jax
import pytest
from conftest import ROOT
from rich.console import Console
from test_training_resume import without_clocks

import flaxdigits
from flaxdigits.cli.options import MODES, Options
from flaxdigits.training.parallel import enable_deterministic_kernels

pytest_plugins = ["tiny_run"]

QUIET = Console(quiet=True, markup=False)


def python(code, environment):
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_is_light(environment):
    loaded = "import sys, json; print(json.dumps(sorted(sys.modules)))"
    before = set(python(loaded, environment))
    own = set(python(f"import flaxdigits; {loaded}", environment)) - before
    standard = {name for name in own if name.partition(".")[0] in sys.stdlib_module_names}
    assert own - standard == {"flaxdigits"}

    code = f"import flaxdigits; flaxdigits.experiment('chinese_cnn', 'seed=3'); {loaded}"
    assert not {"jax", "numpy", "absl", "rich", "matplotlib"} & set(python(code, environment))


def test_type_checkers_and_python_see_the_same_names():
    tree = ast.parse((ROOT / "flaxdigits" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body
            if isinstance(node, ast.ImportFrom) for alias in node.names}
    modules = {name for name, home in seen.items() if home == "flaxdigits"}
    assert modules == set(flaxdigits._MODULES)
    assert all(getattr(flaxdigits, name) is sys.modules[f"flaxdigits.{name}"] for name in modules)
    seen = {name: home for name, home in seen.items() if name not in modules}
    assert {name: f"flaxdigits.{home}" for name, home in flaxdigits._HOMES.items()} == seen
    assert set(flaxdigits.__all__) == seen.keys() <= set(dir(flaxdigits))
    for name, home in seen.items():
        assert getattr(flaxdigits, name) is getattr(sys.modules[home], name)
        assert inspect.getdoc(getattr(flaxdigits, name))
    assert flaxdigits.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        flaxdigits.trian  # noqa: B018


CALLS = {
    "train": "train", "seeds": "train_seeds", "folds": "train_folds", "ablation": "run_ablation",
    "replicate": "replicate", "benchmark": "run_benchmark", "growth": "run_growth",
    "eval": "evaluate", "report": "report", "summary": "summary", "data": "preview_data",
    "prepare": "prepare", "compare": "compare", "predict": "predict", "export": "export"}
FLAGS = {field.name for field in dataclasses.fields(Options)}
# What parts of the command line read of the options, and what the calls name otherwise.
READ_BY = {"data_arguments": {"data", "raw_data_dir", "data_dir"}, "seeds_of": {"seeds"},
           "experiment_trackers": {"experiment"}, "workdir": {"workdirs"},
           "optional_workdir": {"workdirs"}}
MEANT_BY = {"config": {"experiment", "overrides"}, "workdir": {"workdirs"},
            "trackers": {"experiment"}}
# What the command line does with them itself: refuses them, or shows what the call returns.
KEPT_BACK = {"eval": {"overrides"}, "report": {"overrides"},
             "predict": {"format"}, "replicate": {"data"}}


@pytest.mark.parametrize("command", CALLS)
def test_every_flag_of_a_mode_is_an_argument_of_its_call(command):
    tree = ast.parse((ROOT / "flaxdigits" / "cli" / f"{command}.py").read_text())
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "options":
            read |= READ_BY.get(node.attr, {node.attr})
        if isinstance(node, ast.Name) and node.id in READ_BY:
            read |= READ_BY[node.id]
    taken = set()
    for name in inspect.signature(getattr(flaxdigits, CALLS[command])).parameters:
        taken |= MEANT_BY.get(name, {name})
    taken &= FLAGS
    if "config" in inspect.signature(getattr(flaxdigits, CALLS[command])).parameters:
        read |= MEANT_BY["config"]  # the command line makes it
    assert read <= FLAGS
    assert taken == read - KEPT_BACK.get(command, set())


def test_every_flag_and_every_mode_has_its_call():
    modes = {path.stem for path in (ROOT / "flaxdigits" / "cli").glob("*.py")
             if "\ndef run(" in path.read_text()}
    assert modes == {*CALLS, "config"} and set(CALLS.values()) <= set(flaxdigits.__all__)
    assert {*MODES, "seeds", "ablation"} == modes
    arguments = {name for call in CALLS.values()
                 for name in inspect.signature(getattr(flaxdigits, call)).parameters}
    # The program, the call, the logging module, and how the command line shows what is returned.
    assert FLAGS - arguments == {"program", "mode", "logs", "format"}


@pytest.fixture
def recipe(idx_folder):
    """Overrides of mse_cnn that make it a matter of a second."""
    return ["data.dataset=idx_files", f"data.folder={idx_folder}", "data.split=holdout",
            "train.steps=4", "model.filters=2,2"]


def without_progress(text):
    """The lines that do not depend on how long the steps take."""
    return [line for line in text.splitlines() if not line.endswith(" s left")]


def test_training_is_what_the_command_line_does(recipe, launch_here, tmp_path, capsys):
    done = launch_here("--experiment=mse_cnn", f"--workdir={tmp_path / 'flags'}",
                       "--notensorboard", *(f"--set={change}" for change in recipe))
    assert done.returncode == 0, done.stderr
    found = io.StringIO()
    outcome = flaxdigits.train(
        flaxdigits.experiment("mse_cnn", *recipe), str(tmp_path / "calls"), tensorboard=False,
        console=Console(file=found, highlight=False, soft_wrap=True, width=200))
    assert without_clocks(outcome.result) == without_clocks(
        flaxdigits.RunFolder(tmp_path / "flags").result())
    lines, wanted = (without_progress(text) for text in (found.getvalue(), done.stdout))
    assert lines[0] == wanted[0].replace("flags", "calls")
    assert lines[-1] == wanted[-1].replace("flags", "calls")
    assert len(lines) == len(wanted)
    assert not (tmp_path / "calls" / "tensorboard").exists()

    again = flaxdigits.train(flaxdigits.experiment("mse_cnn", *recipe), tmp_path / "calls",
                             console=QUIET)
    assert again.result == outcome.result and capsys.readouterr().out == ""


def test_a_paused_run_is_resumed_from_its_folder(recipe, compiled_once, finished, tmp_path):
    config = flaxdigits.experiment("mse_cnn", *recipe, "train.stop_after=2")
    paused = flaxdigits.train(config, tmp_path, console=QUIET)
    assert paused.result is None and (paused.step, paused.total_steps) == (2, 4)
    recorded = flaxdigits.recorded_experiment(tmp_path, "checkpoint.keep=1")
    assert recorded.train.stop_after is None and recorded.checkpoint.keep == 1
    assert flaxdigits.train(recorded, tmp_path, console=QUIET).result["steps"] == 4


def test_custom_trackers_are_called(recipe, compiled_once, tmp_path):
    class Rows(flaxdigits.Tracker):
        def row(self, row):
            rows.append(row["step"])

    rows: list[int] = []
    config = flaxdigits.experiment("mse_cnn", *recipe, "train.log_every=2")
    flaxdigits.train(config, tmp_path, trackers=[Rows()], console=QUIET)
    assert rows == [2, 4]


def test_seeds_give_their_summary(recipe, compiled_once, tmp_path):
    config = flaxdigits.experiment("mse_cnn", *recipe)
    ended = flaxdigits.train_seeds(config, range(2), tmp_path, console=QUIET)
    assert ended.signal is None and set(ended.outcomes) == {0, 1}
    assert ended.summary == json.loads((tmp_path / "summary.json").read_text())
    assert ended.summary["metrics"]["test_accuracy"]["n"] == 2

    paused = flaxdigits.train_seeds(
        flaxdigits.experiment("mse_cnn", *recipe, "train.stop_after=2"), [5], tmp_path,
        console=QUIET)
    assert paused.summary is None and paused.outcomes[5].step == 2
    with pytest.raises(flaxdigits.FlaxdigitsError, match="seeds must be distinct integers"):
        flaxdigits.train_seeds(config, [], tmp_path)


def test_a_finished_run_is_scored_and_reported(finished_copy, compiled_once, capsys):
    rows = flaxdigits.evaluate(finished_copy, "all")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert capsys.readouterr().out.count("\n") == 3
    result = flaxdigits.RunFolder(finished_copy).result()
    assert flaxdigits.evaluate(finished_copy, 6, console=QUIET)[0]["test_loss"] == (
        result["test_loss"])
    (finished_copy / "report.html").unlink()
    page = flaxdigits.report(finished_copy, console=QUIET)
    assert page == finished_copy / "report.html" and page.stat().st_size > 100_000


def test_layers_and_runs_show_themselves_as_tables(finished):
    summary = flaxdigits.summary(flaxdigits.experiment("mse_cnn"))
    assert summary.parameters == 17_802
    comparison = flaxdigits.compare(finished.parent / "*", finished)
    assert [run.path for run in comparison.runs] == [finished, finished]
    for shown, wanted in ((summary, "9,248"), (comparison, "accuracy")):
        for form in shown._repr_mimebundle_([], []).values():
            assert wanted in form


def test_data_are_prepared_and_previewed(recipe, tmp_path, capsys):
    config = flaxdigits.experiment("mse_cnn", *recipe)
    dataset = flaxdigits.prepare(config)
    assert dataset.images.shape == (270, 28, 28, 1)
    assert dataset.fingerprint in capsys.readouterr().out
    preview = flaxdigits.preview_data(config, tmp_path, console=QUIET)
    assert preview == tmp_path / "figures" / "data.png" and preview.is_file()


def test_the_environment_says_where_raw_data_are(monkeypatch, tmp_path):
    monkeypatch.setenv("FLAXDIGITS_RAW_DATA", str(tmp_path / "named"))
    config = flaxdigits.experiment("mse_cnn")
    with pytest.raises(flaxdigits.FlaxdigitsError, match="named"):
        flaxdigits.prepare(config, data_dir=tmp_path / "data")
    with pytest.raises(flaxdigits.FlaxdigitsError, match="other"):
        flaxdigits.prepare(config, data_dir=tmp_path / "data", raw_data_dir=tmp_path / "other")


def bad_epochs(config):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=0))


REFUSED = {
    "unknown experiment": (lambda c, w: flaxdigits.experiment("mnist_cn"), "did you mean"),
    "unknown field": (lambda c, w: flaxdigits.experiment("mse_cnn", "train.epoch=1"), "epochs"),
    "invalid config": (lambda c, w: flaxdigits.train(bad_epochs(c), w), "train.epochs must be"),
    "data": (lambda c, w: flaxdigits.train(c, w, data="fake"), "data must be one of auto"),
    "a name": (lambda c, w: flaxdigits.train("mse_cnn", w), "must be an ExperimentConfig"),
    "a list": (lambda c, w: flaxdigits.experiment("mse_cnn", ["seed=1"]), "a string 'name=va"),
    "no tracker": (lambda c, w: flaxdigits.train(c, w, trackers=[1]), "trackers must be a list"),
    "no maker": (lambda c, w: flaxdigits.train_seeds(c, [0], w, trackers=[]), "that takes the"),
    "no run": (lambda c, w: flaxdigits.evaluate(w), "not a run folder"),
    "no runs": (lambda c, w: flaxdigits.compare(), "needs the folders of runs"),
    "no run to resume": (lambda c, w: flaxdigits.recorded_experiment(w), "not a run folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_an_error_of_one_line_and_leaves_nothing(case, tmp_path, capsys):
    call, message = REFUSED[case]
    with pytest.raises(flaxdigits.FlaxdigitsError, match=message) as error:
        call(flaxdigits.experiment("mse_cnn"), tmp_path / "run")
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_determinism_after_jax_has_started_is_an_error(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    jax.devices()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(jax, "default_backend", lambda: "gpu")
        with pytest.raises(flaxdigits.FlaxdigitsError, match="restart"):
            enable_deterministic_kernels()
    enable_deterministic_kernels()
    enable_deterministic_kernels()
    assert os.environ["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=true"
