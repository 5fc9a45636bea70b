"""The pages in docs/: their commands and their experiment file work."""

import dataclasses
import json
import re
import shlex
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT
from PIL import Image

from flaxdigits.augmentations import Augmentation
from flaxdigits.config import DataConfig
from flaxdigits.datasets import DATASETS, SPLITS
from flaxdigits.losses import Loss
from flaxdigits.metrics import Metric
from flaxdigits.models import Model
from flaxdigits.objectives import Objective
from flaxdigits.optimizers import Optimizer
from flaxdigits.schedules import Schedule
from flaxdigits.studies.study import load_study, variants_of

pytest_plugins = ["tiny_run"]
pytestmark = pytest.mark.usefixtures("registries")

COMMAND_LINE, DATA, EXTENDING, MODELS = (
    (ROOT / "docs" / name).read_text()
    for name in ("command_line.md", "data.md", "extending.md", "models.md"))


def blocks_of(page):
    """Returns the language and the text of each block of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def commands_of(page):
    """Returns the commands of the blocks without a language, each on one line."""
    return [line for language, block in blocks_of(page) if not language
            for line in block.replace("\\\n", " ").splitlines()
            if line.startswith("python launch.py")]


BLOCKS = blocks_of(EXTENDING)
COMMANDS = commands_of(EXTENDING) + commands_of(MODELS)


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
    (code,) = [block for language, block in blocks_of(MODELS) if language == "python"]
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


# --- docs/command_line.md -------------------------------------------------------------------------

@pytest.mark.parametrize("command", commands_of(COMMAND_LINE))
def test_commands_of_the_command_line_work(command, launch_here):
    done = launch_here(*shlex.split(command)[2:])
    assert done.returncode == 0 and done.stderr == "" and done.stdout != ""


@pytest.mark.parametrize(
    ("command", "message"), re.findall(r"^\$ (.*)\n(error: .*)", COMMAND_LINE, re.MULTILINE))
def test_refused_commands_print_what_the_page_says(command, message, launch_here):
    done = launch_here(*shlex.split(command)[2:])
    assert done.returncode == 2 and done.stderr == f"{message}\n"


# --- docs/data.md ---------------------------------------------------------------------------------

class Emnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Letters in small, prepared as ArrayRecord without TensorFlow."""

    VERSION = tfds.core.Version("3.1.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="letters")]

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8, encoding="bytes"),
            "label": tfds.features.ClassLabel(num_classes=3)}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(60), "test": self._generate_examples(12)}

    def _generate_examples(self, count):
        for row in range(count):
            yield row, {"image": np.full((28, 28, 1), row, np.uint8), "label": row % 3}


@pytest.fixture(scope="module")
def data_of_the_page(tmp_path_factory, idx_folder):
    """A folder with the files that the commands of the page name."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "fashion-mnist").symlink_to(idx_folder)
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28)).astype(np.uint8)
    np.savez(folder / "digits.npz", images=images, labels=np.arange(60) % 3)
    for row, image in enumerate(images):
        path = folder / "photos" / "abc"[row % 3] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (split,) = [block for language, block in blocks_of(DATA) if language == "json"]
    (folder / "split.json").write_text(split)
    Emnist(data_dir=folder / "tfds", config="letters",
           file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.parametrize("command", commands_of(DATA))
def test_commands_about_data_read_their_data(
    command, launch_here, data_of_the_page, monkeypatch
):
    monkeypatch.chdir(data_of_the_page)
    words = [word for word in shlex.split(command)[2:] if not word.startswith("--mode=")]
    is_custom = any(word.startswith("data.dataset=") for word in words)
    # Synthetic MNIST is not prepared here, as it takes long.
    done = launch_here(*words, "--data_dir=tfds", f"--mode={'prepare' if is_custom else 'config'}")
    assert done.returncode == 0, done.stderr
    if is_custom:
        assert re.search(r"\nsplit \w+: train \d+, ", done.stdout)


def test_the_data_set_of_the_page_is_trained_on(write, launch_here, tmp_path):
    code = next(block for language, block in blocks_of(DATA) if "get_config" in block)
    done = launch_here(f"--experiment={write(code)}", f"--workdir={tmp_path / 'run'}",
                       "--set=train.steps=2", "--set=model.filters=2", "--set=model.dense=4,4")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["dataset"], result["train_examples"]) == ("bars", 600)


def test_the_page_names_every_data_set_split_and_field():
    fields = {field.name for field in dataclasses.fields(DataConfig)}
    for name in fields - {"augmentation", "preprocessing"}:
        assert f"data.{name}" in DATA, name
    for name in [*DATASETS, *SPLITS, "kaggle"]:
        assert f"| `{name}` |" in DATA, name
