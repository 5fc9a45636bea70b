"""The pages in docs/: their commands and their experiment file work."""

import json
import re
import shlex

import pytest
from conftest import ROOT

from flaxdigits.augmentations import Augmentation
from flaxdigits.losses import Loss
from flaxdigits.metrics import Metric
from flaxdigits.objectives import Objective
from flaxdigits.optimizers import Optimizer
from flaxdigits.schedules import Schedule

pytest_plugins = ["tiny_run"]
pytestmark = pytest.mark.usefixtures("registries")

EXTENDING = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", EXTENDING, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for language, block in BLOCKS if not language
    for line in block.replace("\\\n", " ").splitlines() if line.startswith("python launch.py")]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_give_a_valid_config(command, launch_here):
    done = launch_here(*shlex.split(command)[2:], "--mode=config")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["experiment"] == "dense_cnn"


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


@pytest.mark.parametrize("kind", [Optimizer, Schedule, Loss, Objective, Augmentation, Metric])
def test_the_table_names_every_shipped_component(kind):
    (row,) = [line for line in EXTENDING.splitlines() if line.startswith(f"| {kind.kind} |")]
    shipped = row.split("|")[-2]
    assert sorted(set(re.findall(r"[a-z_0-9]+", shipped.partition(", and every")[0]))) == sorted(
        name for name, cls in kind.registered.items()
        if cls.__module__.startswith("flaxdigits."))
