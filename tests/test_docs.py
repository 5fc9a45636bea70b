"""The pages of the documentation: their commands, experiments, studies and scripts work."""

import dataclasses
import functools
import json
import os
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl.testing import flagsaver
from documentation import PAGES, blocks_of, commands_of, files_of, launches, scripts_of
from PIL import Image
from tiny_run import train

import flaxdigits
from flaxdigits.augmentations import Augmentation
from flaxdigits.cli.context import resolve_config
from flaxdigits.cli.options import MODES, Options, parse
from flaxdigits.config import DataConfig, to_dict
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.datasets import DATASETS, SPLIT_SCHEMES
from flaxdigits.experiments import load_experiment, load_trackers
from flaxdigits.losses import Loss
from flaxdigits.metrics import Metric
from flaxdigits.models import CnnConfig, Model, build_model
from flaxdigits.objectives import Distillation, Objective
from flaxdigits.optimizers import Optimizer
from flaxdigits.overrides import apply_overrides
from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.schedules import Schedule
from flaxdigits.studies.study import load_study, variants_of
from flaxdigits.training.freezing import check_freeze
from flaxdigits.training.results import no_report
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.state import variables_shapes
from flaxdigits.training.weights import SavedWeights, split_checkpoint

pytest_plugins = ["tiny_run"]
pytestmark = pytest.mark.usefixtures("registries")

DATA = PAGES["docs/data.md"]
# Commands that are not those of flaxdigits.
OTHERS = ("pip install ", "pytest", "sphinx-build ", "bash .ci/", "python tests/faults ")
EXPERIMENTS = [(page, name) for page in PAGES for name in files_of(page, "get_config")]
STUDIES = [(page, name) for page in PAGES for name in files_of(page, "get_study")]


def test_every_line_of_a_block_is_a_command():
    for page in PAGES:
        for command in commands_of(page):
            assert command.startswith(("python launch.py ", *OTHERS)) or command == "", (
                f"{page}: {command}: mark blocks that hold no commands as text")


def parsed(arguments):
    with flagsaver.flagsaver():
        options = parse(["launch.py", *arguments])
    assert isinstance(options, Options | str)
    return options


@pytest.mark.parametrize(("page", "command"), list(launches()))
def test_commands_are_valid(page, command, tmp_path):
    files = files_of(page, "get_config")
    studies = list(files_of(page, "get_study").values())
    arguments = []
    for word in shlex.split(command):
        flag, separator, value = word.partition("=path/to/")
        if separator:
            text = studies[0] if flag == "--ablation" else files[value]
            (tmp_path / value).write_text(text)
            word = f"{flag}={tmp_path / value}"
        arguments.append(word)
    options = parsed(arguments)
    if isinstance(options, str):  # of --list
        return
    if options.ablation is not None:
        assert variants_of(load_study(options.ablation), options.overrides)
    elif options.experiment is not None:
        resolve_config(options)


def test_commands_use_runs_that_were_trained():
    trained, needed = set(), set()
    for _, command in launches():
        options = parsed(shlex.split(command))
        if isinstance(options, str):
            continue
        folders = {str(folder) for folder in options.workdirs}
        if options.command in ("train", "seeds"):
            stem = (options.experiment or "").removeprefix("path/to/").removesuffix(".py")
            trained |= folders or {f"runs/{stem}"}
        elif options.command in ("eval", "report", "predict", "export", "compare"):
            assert folders, command
            needed |= folders
    assert len(needed) >= 4
    for folder in needed:
        assert any(fnmatch(path, folder) for path in trained), folder


# The shape of an image and the number of classes of the data that runs in the pages start from.
INPUTS = {"mnist": ((28, 28, 1), 10), "chinese_mnist": ((64, 64, 1), 15),
          "tfds:emnist/letters": ((28, 28, 1), 26), "image_folder": ((28, 28, 1), 3)}


def trained_runs():
    """Yields the page, the folder and the config of each run of a built-in experiment."""
    for page, command in launches():
        options = parsed(shlex.split(command))
        if isinstance(options, str) or options.command not in ("train", "seeds"):
            continue
        if options.experiment and not options.experiment.endswith(".py"):
            (folder,) = options.workdirs or (Path("runs") / options.experiment,)
            yield page, folder, resolve_config(options)


def shapes_for(config, num_classes):
    """Returns the shapes of the variables of a run's model."""
    model = build_model(config.model, num_classes)
    return variables_shapes(model, INPUTS[config.data.dataset][0])


def saved_weights(config, folder):
    """Returns weights with the shapes of those of a run."""
    shapes = shapes_for(config, INPUTS[config.data.dataset][1])
    return SavedWeights(
        jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes), RunFolder(folder))


def source_of(path, runs, own_folder):
    """Returns the run that `path` refers to, which another command trained."""
    name, checkpoint = split_checkpoint(path)
    folder = Path(os.path.relpath(name))
    assert folder in runs, f"{path}: no command trains this run"
    assert folder != own_folder, f"{path}: the run has the folder of its source; set --workdir"
    if checkpoint == "best":  # refused without a validation split
        apply_overrides(runs[folder], ["checkpoint.select=best"])
    return folder, runs[folder]


def test_runs_that_others_start_from_are_trained_and_fit(caplog):
    runs, initialized, taught, frozen = {}, 0, 0, 0
    found = list(trained_runs())
    for _, folder, config in found:
        runs.setdefault(folder, config)
    for page, own_folder, config in found:
        if config.train.freeze:
            check_freeze(shapes_for(config, 10)["params"], config.train.freeze)
            frozen += 1
        if config.train.init_from:
            folder, source = source_of(config.train.init_from, runs, own_folder)
            caplog.clear()
            image_shape, num_classes = INPUTS[config.data.dataset]
            saved_weights(source, folder).variables_for(
                functools.partial(shapes_for, config), num_classes, config, image_shape)
            if num_classes != INPUTS[source.data.dataset][1] and source.model.name == "resnet":
                note = caplog.messages[0].replace(os.getcwd(), "/home/me")
                assert f"note: {note}\n" in PAGES[page]
            initialized += 1
        if isinstance(config.train.objective, Distillation):
            _, teacher = source_of(config.train.objective.teacher, runs, own_folder)
            assert INPUTS[teacher.data.dataset] == INPUTS[config.data.dataset]
            assert teacher.data.preprocessing == config.data.preprocessing
            taught += 1
    assert initialized >= 3 and taught >= 1 and frozen >= 2


def test_there_are_experiments_of_every_kind():
    assert {page for page, _ in EXPERIMENTS} >= {
        page for page in PAGES if page.startswith("docs/extending")}


# The fields that experiments which start from a built-in one change, as their docstrings say.
CHANGES = {
    "slim.py": {"data.split", "model.batch_norm", "model.filters", "optimizer.schedule"},
    "mine.py": {"data.augmentation", "data.split", "evaluate.metrics", "optimizer", "train.loss"},
    "dimmed.py": {"data.augmentation"}, "worst.py": {"evaluate.metrics"},
    "hinge.py": {"train.loss"}, "confident.py": {"train.objective"},
    "polynomial.py": {"optimizer.schedule"}, "signs.py": {"optimizer"},
    "decayed_signs.py": {"optimizer"}, "logged.py": set()}


@pytest.mark.parametrize(("page", "name"), [
    (page, name) for page, name in EXPERIMENTS
    if "load_experiment" in files_of(page, "get_config")[name]])
def test_experiments_keep_the_other_fields_of_their_base(page, name, write):
    text = files_of(page, "get_config")[name]
    config = to_dict(load_experiment(str(write(text, name))))
    base = to_dict(load_experiment(re.findall(r"\w+", text)[1]))
    changed = set()
    for section in base.keys() - {"experiment"}:
        new, old = config[section], base[section]
        if isinstance(new, dict) and new.get("name") == old.get("name"):
            changed |= {f"{section}.{field}" for field in new if new[field] != old[field]}
        elif new != old:
            changed.add(section)
    assert changed == CHANGES[name]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "name"), EXPERIMENTS)
def test_experiments_are_trained(page, name, write, idx_folder, compiled_once, tmp_path):
    path = write(files_of(page, "get_config")[name], name)
    config = load_experiment(str(path))
    assert f"{config.experiment}.py" == name
    config = apply_overrides(config, ["train.steps=2", "train.batch_size=20"])
    if name != "bars.py":
        config = apply_overrides(config, [
            "data.dataset=idx_files", f"data.folder={idx_folder}", "data.split=holdout"])
    if isinstance(config.model, CnnConfig):  # a small one
        filters = ",".join("2" * len(config.model.filters))
        config = apply_overrides(config, [f"model.filters={filters}"])
    trackers = load_trackers(str(path))
    dataset = load_dataset(config.data, DataLocations())
    write_report = write_report_or_warn if trackers else no_report
    result = train(config, dataset, tmp_path / "run", trackers, write_report).result
    assert result["steps"] == 2
    for metric in config.evaluate.metrics:
        assert isinstance(result[f"test_{metric.key}"], float)
    if trackers:
        row, last = (tmp_path / "run" / "service.log").read_text().splitlines()
        assert "train_loss" in row and "confusion.png" in last


@pytest.mark.parametrize(("page", "name"), STUDIES)
def test_studies_are_valid(page, name, write):
    study = load_study(str(write(files_of(page, "get_study")[name])))
    assert len(variants_of(study)) >= 4


def in_small(code, folder):
    """Returns a script whose run takes a second."""
    return code.replace('"data.split=writers"', repr([
        "data.dataset=idx_files", f"data.folder={folder}", "data.split=holdout", "train.steps=1",
        "model.filters=1,1,1", "model.dense=2"])[1:-1])


def test_the_script_of_the_readme_works(
    compiled_once, idx_folder, tmp_path, monkeypatch, capsys
):
    (script,) = scripts_of("README.md")
    assert scripts_of("docs/getting_started.md") == [script]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(in_small(script, idx_folder), names)
    (row,) = names["scores"]
    assert row["test_accuracy"] == names["outcome"].result["test_accuracy"]
    assert f"{row['test_accuracy']}\n" in capsys.readouterr().out


def test_arrays_are_trained_on(compiled_once, tmp_path, monkeypatch):
    (script,) = scripts_of("docs/extending/datasets.md")
    monkeypatch.chdir(tmp_path)
    exec(script.replace('"train.epochs=1"', '"train.steps=2", "model.filters=2"'), {})
    result = json.loads((tmp_path / "runs" / "arrays" / "result.json").read_text())
    assert (result["dataset"], result["steps"]) == ("arrays", 2)


def test_a_network_is_exported_and_predicts(finished_copy, tmp_path, monkeypatch):
    predict, export = scripts_of("docs/predict_export.md")
    (tmp_path / "runs").mkdir()
    finished_copy.rename(tmp_path / "runs" / "mnist_cnn")
    (tmp_path / "photos").mkdir()
    image = np.full((40, 40), 255, np.uint8)
    image[5:35, 17:23] = 0
    Image.fromarray(image).save(tmp_path / "photos" / "one.jpg")
    monkeypatch.chdir(tmp_path)
    names = {"images": image[None, :28, :28, None]}
    exec(predict, names)
    (prediction,) = names["predictions"].predictions
    assert prediction.error is None and len(prediction.guesses) == 3
    flaxdigits.export("runs/mnist_cnn")
    exec(export, names)
    assert names["logits"].shape == (1, 10)


def test_every_script_is_tested():
    tested = {"README.md", "docs/getting_started.md", "docs/extending/datasets.md",
              "docs/predict_export.md", "docs/data.md", "docs/python.md"}
    assert {page for page in PAGES if scripts_of(page)} == tested
    assert "download_and_prepare" in "".join(scripts_of("docs/data.md"))  # done by `Emnist` below
    assert len(scripts_of("docs/data.md")) == 1


@pytest.mark.parametrize("kind", [Optimizer, Schedule, Loss, Objective, Augmentation, Metric])
def test_pages_list_the_components_with_their_fields(kind):
    page = PAGES[f"docs/extending/{kind.kind}s.md".replace("losss", "losses")]
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\|", page, re.MULTILINE)
    documented = {name: set(re.findall(r"\w+", fields)) for name, fields in rows}
    inherited = {field.name for field in dataclasses.fields(kind)}
    for name, cls in kind.registered.items():
        if cls.__module__.startswith("flaxdigits."):
            fields = {field.name for field in dataclasses.fields(cls)} - inherited
            assert documented.pop(name, None) == fields, name
    assert documented == {}


def test_the_page_of_the_models_names_each_with_its_fields():
    rows = [line.split("|")[1:3] for line in PAGES["docs/models.md"].split("## First")[0]
            .splitlines() if line.startswith("| `") and "model.name" not in line]
    named = {name: re.findall(r"\w+", fields) for names, fields in rows
             for name in re.findall(r"\w+", names)}
    assert named == {
        name: [field.name for field in dataclasses.fields(cls)]
        for name, cls in Model.registered.items() if cls.__module__.startswith("flaxdigits.")}


def test_the_table_of_modes_is_complete():
    modes = re.findall(r"^\| `(\w+)`.* \|", PAGES["docs/command_line.md"], re.MULTILINE)
    assert sorted(modes) == sorted(MODES)


# --- docs/command_line.md -------------------------------------------------------------------------

@pytest.mark.parametrize("command", commands_of("docs/command_line.md"))
def test_commands_of_the_command_line_work(command, launch_here):
    completed = launch_here(*shlex.split(command)[2:])
    assert completed.returncode == 0 and completed.stderr == "" and completed.stdout != ""


@pytest.mark.parametrize(
    ("command", "message"), re.findall(
        r"^\$ (.*)\n(error: .*)", PAGES["docs/command_line.md"], re.MULTILINE))
def test_refused_commands_print_what_the_page_says(command, message, launch_here):
    completed = launch_here(*shlex.split(command)[2:])
    assert completed.returncode == 2 and completed.stderr == f"{message}\n"


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
    (split,) = [block for language, block in blocks_of("docs/data.md") if language == "json"]
    (folder / "split.json").write_text(split)
    Emnist(data_dir=folder / "tfds", config="letters",
           file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.parametrize("command", [
    command for command in commands_of("docs/data.md") if "data.dataset=" in command])
def test_commands_about_data_read_their_data(
    command, launch_here, data_of_the_page, monkeypatch
):
    monkeypatch.chdir(data_of_the_page)
    words = [word for word in shlex.split(command)[2:] if not word.startswith("--mode=")]
    completed = launch_here(*words, "--data_dir=tfds", "--mode=prepare")
    assert completed.returncode == 0, completed.stderr
    assert re.search(r"\nsplit \w+: train \d+, ", completed.stdout)


def test_the_page_names_every_data_set_split_and_field():
    fields = {field.name for field in dataclasses.fields(DataConfig)}
    for name in fields - {"augmentation", "preprocessing"}:
        assert f"data.{name}" in DATA, name
    for name in [*DATASETS, *SPLIT_SCHEMES, "kaggle"]:
        assert f"| `{name}` |" in DATA, name
