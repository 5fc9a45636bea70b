"""The pages in docs/: their commands and their experiment file work."""

import dataclasses
import json
import re
import shlex

import pytest
from conftest import ROOT

from flaxdigits.augmentations import Augmentation
from flaxdigits.losses import Loss
from flaxdigits.metrics import Metric
from flaxdigits.models import Model
from flaxdigits.objectives import Objective
from flaxdigits.optimizers import Optimizer
from flaxdigits.schedules import Schedule
from flaxdigits.studies.study import load_study, variants_of

pytest_plugins = ["tiny_run"]
pytestmark = pytest.mark.usefixtures("registries")

EXTENDING, MODELS = (
    (ROOT / "docs" / name).read_text() for name in ("extending.md", "models.md"))


def blocks(page):
    """The language and the text of each block of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


BLOCKS = blocks(EXTENDING)
COMMANDS = [
    line for language, block in BLOCKS + blocks(MODELS) if not language
    for line in block.replace("\\\n", " ").splitlines() if line.startswith("python launch.py")]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_give_a_valid_config(command, launch_here):
    done = launch_here(*shlex.split(command)[2:], "--mode=config")
    assert done.returncode == 0, done.stderr
    assert f"--experiment={json.loads(done.stdout)['experiment']} " in command


def test_the_experiment_file_is_trained(write, launch_here, idx_folder, tmp_path):
    (code,) = [block for language, block in BLOCKS if language == "python"]
    path = write(code)
    done = launch_here(
        f"--experiment={path}", f"--workdir={tmp_path / 'run'}", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", "--set=train.steps=2", "--set=model.filters=2",
        "--set=model.dense=4,4", "--set=optimizer.momentum=0.5")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 <= result["test_worst_class"] <= 1


def test_the_model_of_the_page_is_trained(write, launch_here, idx_folder, tmp_path):
    (code,) = [block for language, block in BLOCKS if language == "py"]
    done = launch_here(
        f"--experiment={write(code)}", f"--workdir={tmp_path / 'run'}", "--set=train.steps=2",
        "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}", "--set=model.rate=0.1")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["model"] == {"name": "wide", "filters": [16, 32], "rate": 0.1}


def test_the_study_of_architectures_is_valid(write):
    (code,) = [block for language, block in blocks(MODELS) if language == "python"]
    configs = variants_of(load_study(str(write(code, "study.py"))))
    assert list(configs) == ["base", "model=lenet5", "model=mlp", "model=resnet", "model=vit"]


def test_the_page_of_the_models_names_each_with_its_fields():
    rows = [line.split("|")[1:3] for line in MODELS.split("## First")[0].splitlines()
            if line.startswith("| `") and "model.name" not in line]
    named = {name: re.findall(r"\w+", fields) for names, fields in rows
             for name in re.findall(r"\w+", names)}
    assert named == {
        name: [field.name for field in dataclasses.fields(cls)]
        for name, cls in Model.registered.items() if cls.__module__.startswith("flaxdigits.")}


@pytest.mark.parametrize("kind", [
    Optimizer, Schedule, Loss, Objective, Augmentation, Metric, Model])
def test_the_table_names_every_shipped_component(kind):
    (row,) = [line for line in EXTENDING.splitlines() if line.startswith(f"| {kind.kind} |")]
    shipped = row.split("|")[-2]
    assert sorted(set(re.findall(r"[a-z_0-9]+", shipped.partition(", and every")[0]))) == sorted(
        name for name, cls in kind.registered.items()
        if cls.__module__.startswith("flaxdigits."))
