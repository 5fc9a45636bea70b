"""The commands and examples of the README work."""

import re
import shlex

import pytest
from absl.testing import flagsaver
from conftest import ROOT
from PIL import Image

from flaxdigits.cli.context import resolve_config
from flaxdigits.cli.options import Options, parse
from flaxdigits.studies.study import load_study, variants_of

pytest_plugins = ["tiny_run"]

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"python launch\.py((?: [^`\"\n]*)?)", re.sub(r"(?: \\)?\n +(?=\S)", " ", TEXT))
# What a reader brings, and what a run writes.
OWN = {"photos/*.jpg", "~/fashion-mnist", "~/my-images"}
WRITTEN = {"checkpoints/", "figures/"}
PYTHON, EXAMPLE, TRACKER, STUDY = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def slim(tmp_path):
    path = tmp_path / "slim.py"
    path.write_text(EXAMPLE)
    return path


def test_it_has_commands():
    assert len(COMMANDS) >= 8


def test_its_pictures_exist():
    pictures = re.findall(r"!\[([^]]+)\]\(([^)]+)\)", TEXT)
    assert pictures and TEXT.index("![") < TEXT.index("\n## ")
    for words, name in pictures:
        assert len(words) > 40
        assert (ROOT / name).stat().st_size < 200_000
        with Image.open(ROOT / name) as image:
            image.load()
            assert image.width >= 1000


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_valid(command, slim):
    arguments = [str(slim).join(word.split("path/to/slim.py")) for word in shlex.split(command)]
    with flagsaver.flagsaver():
        options = parse(["launch.py", *arguments])
    assert isinstance(options, Options)
    if options.experiment:
        resolve_config(options)


def paths_of(options):
    """The files, folders and patterns that a command names, but for run folders."""
    yield from (options.update, options.raw_data_dir, options.data_dir, *options.collect,
                *options.images)
    yield from (override.partition("=")[2] for override in options.overrides
                if override.startswith("data.folder="))
    yield from (path for path in (options.experiment, options.ablation)
                if path is not None and path.endswith(".py"))


def test_the_files_in_commands_exist():
    trained, needed, named = set(), set(), set()
    for command in COMMANDS:
        with flagsaver.flagsaver():
            options = parse(["launch.py", *shlex.split(command)])
        named |= {str(path) for path in paths_of(options) if path is not None}
        folders = {str(folder) for folder in options.workdirs}
        if options.command in ("train", "seeds"):
            trained |= folders or {f"runs/{options.experiment}"}
        elif options.command in ("eval", "report", "predict", "export", "compare"):
            assert folders, command
            needed |= folders
    assert needed and needed <= trained
    assert "experiments/results" in named
    missing = {path for path in named if not list(ROOT.glob(path.removeprefix("~/")))}
    assert missing == OWN | {f"path/to/{name}.py" for name in ("slim", "mine")}
    for command in COMMANDS:
        if "--ablation=" in command:
            assert "path/to/mine.py" in command  # which is the README's own example


def test_the_files_that_it_mentions_exist():
    named = re.findall(r"`((?:[\w-]+/)+[\w.-]*|launch\.py|[A-Z]+\.\w+)`", TEXT)
    own = {name for name in named if not name.startswith(("runs/", "seeds/"))}
    assert len(own) >= 15
    missing = {name for name in own if not any(
        (ROOT / place / name).exists() for place in ("", "flaxdigits", "experiments/ablations"))}
    assert missing == WRITTEN


def test_the_python_calls_do_what_they_say(
    compiled_once, idx_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    changes = ["data.dataset=idx_files", f"data.folder={idx_folder}", "data.split=holdout",
               "train.steps=1", "model.filters=1,1,1", "model.dense=2"]
    code = PYTHON.replace('"data.split=writers"', repr(changes)[1:-1])
    assert code != PYTHON
    made = {}
    exec(code, made)
    (row,) = made["scores"]
    assert row["test_accuracy"] == made["outcome"].result["test_accuracy"]
    assert f"{row['test_accuracy']}\n" in capsys.readouterr().out


def test_the_example_has_ten_lines_and_works(slim, launch):
    assert len([line for line in EXAMPLE.splitlines() if line]) <= 10
    done = launch(f"--experiment={slim}", "--mode=summary")
    assert done.returncode == 0, done.stderr
    assert "(None, 64, 64, 16)" in done.stdout and "BatchNorm" in done.stdout


def test_the_tracker_is_called(slim, launch_here, idx_folder, tmp_path):
    slim.write_text(EXAMPLE + TRACKER)
    done = launch_here(
        f"--experiment={slim}", f"--workdir={tmp_path / 'run'}", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", "--set=data.split=holdout", "--set=train.steps=1",
        "--set=model.filters=1,1,1", "--set=model.dense=2")
    assert done.returncode == 0, done.stderr
    row, result = (tmp_path / "run" / "service.log").read_text().splitlines()
    assert "train_loss" in row and "confusion.png" in result


def test_the_study_has_fewer_than_ten_lines_and_is_valid(tmp_path):
    assert len([line for line in STUDY.splitlines() if line]) < 10
    path = tmp_path / "mine.py"
    path.write_text(STUDY)
    assert list(variants_of(load_study(str(path)))) == [
        "base", "dropout=", "dropout=0.3", "dropout=0.5"]


def test_the_table_of_modes_is_complete():
    from flaxdigits.cli.options import MODES

    assert set(re.findall(r"^\| `(\w+)`.* \|", TEXT, re.MULTILINE)) >= set(MODES)


def test_no_placeholders_are_left():
    texts = [TEXT, *(path.read_text() for path in (ROOT / "experiments").glob("*.py"))]
    for text in texts:
        assert not re.findall(r"\b(?:TIME|RESULTS?|DRAWN|SPEED)_\w+|TODO|FIXME", text)
