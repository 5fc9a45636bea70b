"""Experiment files of one's own, good and bad."""

import json
import textwrap

import numpy as np
import pytest
from PIL import Image

import flaxdigits.models
from flaxdigits.config import ExperimentConfig, to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import list_experiments, load_experiment
from flaxdigits.overrides import field_names

pytest_plugins = ["tiny_run"]


def refusal(path) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        load_experiment(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def write(tmp_path):
    """Writes an experiment file of one's own and gives its path."""
    def write_file(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write_file


@pytest.fixture
def registry(monkeypatch):
    """Forgets afterwards what a test registers."""
    monkeypatch.setattr(
        flaxdigits.models, "ARCHITECTURES", dict(flaxdigits.models.ARCHITECTURES))


def test_an_unknown_name_tells_its_near_matches():
    assert "did you mean chinese_cnn" in refusal("chinese_cn")
    assert "--list" in refusal("zzz")
    assert "--list" in refusal("../experiments/chinese_cnn")


OWN = """
    '''mine: a single dense layer, to show an experiment of one's own.'''

    from __future__ import annotations

    import dataclasses

    import flax.linen as nn
    import jax

    from flaxdigits.config import ExperimentConfig, ModelConfig, OptimizerConfig, TrainConfig
    from flaxdigits.models import register


    @dataclasses.dataclass(frozen=True)
    class OwnConfig(ModelConfig):
        scale: float = 1.0
        bias: bool | None = None


    @register("own_net")
    class OwnNet(nn.Module):
        num_classes: int
        filters: tuple[int, ...]
        dense: tuple[int, ...]
        dropout: tuple[float, ...]
        batch_norm: bool
        scale: float
        bias: bool | None

        @nn.compact
        def __call__(self, images, training=None):
            flat = images.reshape(len(images), -1)
            return self.scale * nn.Dense(self.num_classes, use_bias=bool(self.bias))(flat)


    def get_config() -> ExperimentConfig:
        return ExperimentConfig(
            "mine", OwnConfig("own_net", scale=2.0, bias=True),
            optimizer=OptimizerConfig(name="sgd", learning_rate=0.1),
            train=TrainConfig(batch_size=50, steps=8))
"""


@pytest.fixture
def own_run(write, registry, launch_here, idx_folder, tmp_path):
    """An experiment file outside the repository, and the folder of its run."""
    path, workdir = write(OWN), tmp_path / "run"
    done = launch_here(
        f"--experiment={path}", f"--workdir={workdir}", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", "--set=data.split=holdout", "--set=model.scale=0.5")
    assert done.returncode == 0, done.stderr
    return path, workdir


def test_an_own_file_trains_and_is_evaluated(own_run, launch_here):
    path, workdir = own_run
    result = json.loads((workdir / "result.json").read_text())
    assert result["experiment"] == "mine" and result["steps"] == 8
    assert result["parameters"] == 28 * 28 * 10 + 10
    assert result["test_accuracy"] > 0.5, "bright bars in noise are easy"
    recorded = json.loads((workdir / "config.json").read_text())["config"]["model"]
    assert recorded["scale"] == 0.5 and recorded["bias"] is True

    done = launch_here("--mode=eval", f"--workdir={workdir}", f"--experiment={path}")
    assert done.returncode == 0, done.stderr
    row = json.loads((workdir / "eval.jsonl").read_text())
    assert row["step"] == 8 and row["test_errors"] == result["test_errors"]

    summary = launch_here("--mode=summary", f"--experiment={path}", f"--workdir={workdir}",
                          *own_data(workdir))
    assert summary.returncode == 0, summary.stderr
    assert "7,850" in summary.stdout


def own_data(workdir):
    data = json.loads((workdir / "config.json").read_text())["config"]["data"]
    return [f"--set=data.{name}={data[name]}" for name in ("dataset", "folder", "split")]


LEAST = """
    import dataclasses
    import flax.linen as nn
    from flaxdigits.config import ExperimentConfig, ModelConfig
    from flaxdigits.models import register

    @register("least")
    class Least(nn.Module):
        {fields}
        @nn.compact
        def __call__(self, images, training):
            return nn.Dense({logits})(images.reshape(len(images), -1))

    def get_config():
        return ExperimentConfig("least", ModelConfig("least", {config}))
"""


def train_least(write, launch_here, idx_folder, tmp_path, fields="", logits="10", config=""):
    path = write(LEAST.format(fields=fields, logits=logits, config=config))
    return launch_here(
        f"--experiment={path}", f"--workdir={tmp_path / 'run'}", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", "--set=data.split=holdout", "--set=train.steps=2")


def test_an_own_architecture_has_the_fields_that_it_wants(
    write, registry, launch_here, idx_folder, tmp_path
):
    done = train_least(write, launch_here, idx_folder, tmp_path)
    assert done.returncode == 0, done.stderr
    picture = np.full((40, 40), 255, np.uint8)
    picture[10:30, 18:22] = 0
    Image.fromarray(picture).save(tmp_path / "one.png")
    read = launch_here("--mode=predict", f"--workdir={tmp_path / 'run'}",
                       f"--experiment={tmp_path / 'mine.py'}", f"--images={tmp_path / 'one.png'}")
    assert read.returncode == 0 and "one.png" in read.stdout, read.stderr


@pytest.mark.parametrize("change, told", [
    ({"config": "filters=(8,)"}, "model.filters is (8,), and Least has no field of that name"),
    ({"fields": "depth: int\n"}, "Least has a field depth without a default, which ModelConfig"),
    ({"logits": "11"}, "Least makes [2, 11] of 2 images; it must be logits, [2, 10]"),
])
def test_an_own_architecture_that_does_not_fit_is_told(
    change, told, write, registry, launch_here, idx_folder, tmp_path
):
    done = train_least(write, launch_here, idx_folder, tmp_path, **change)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert told in done.stderr
    assert not (tmp_path / "run").exists()


def test_weights_of_an_own_run_are_taken_as_the_first_ones(own_run, launch_here, tmp_path):
    path, workdir = own_run
    done = launch_here(
        f"--experiment={path}", f"--workdir={tmp_path / 'second'}", *own_data(workdir),
        "--set=model.scale=0.5", f"--set=train.init_from={workdir}", "--set=train.steps=1",
        "--set=optimizer.learning_rate=1e-9")
    assert done.returncode == 0, done.stderr
    second = json.loads((tmp_path / "second" / "result.json").read_text())
    first = json.loads((workdir / "result.json").read_text())
    assert second["test_loss"] == pytest.approx(first["test_loss"], rel=1e-5)


def test_an_own_run_without_its_file_says_what_is_missing(own_run, launch_here):
    _, workdir = own_run
    done = launch_here("--mode=eval", f"--workdir={workdir}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--experiment" in done.stderr


def test_an_own_file_may_use_a_shipped_architecture(write):
    path = write("""
        from flaxdigits.config import ExperimentConfig, ModelConfig

        def get_config():
            return ExperimentConfig("mine", ModelConfig("mse_cnn", filters=(4, 4)))
    """)
    config = load_experiment(str(path))
    assert isinstance(config, ExperimentConfig) and config.experiment == "mine"
    assert "model.filters" in field_names(config)
    assert json.loads(json.dumps(to_dict(config)))["model"]["name"] == "mse_cnn"


GET_CONFIG = """
from flaxdigits.config import ExperimentConfig, ModelConfig, TrainConfig

def get_config():
"""


@pytest.mark.parametrize(("text", "line", "told"), [
    ("x = 1\ny = (\n", "line 2", "SyntaxError"),
    ("def get_config():\n\tif 1:\n        return 1\n", "line 3", "TabError"),
    ("x = 1\nimport no_such_package\n", ":2", "No module named 'no_such_package'"),
    ("x = 1\n\nraise ValueError('wrong')\n", ":3", "ValueError: wrong"),
    ("raise ValueError('two\\nlines')\n", ":1", "ValueError: two"),
    ("raise SystemExit(3)\n", ":1", "SystemExit"),
    ("assert False\n", ":1", "AssertionError"),
    (GET_CONFIG + "    return ExperimentConfig('a')\n", ":5", "model"),
    (GET_CONFIG + "    config = ModelConfig('a', layers=3)\n    return config\n", ":5", "layers"),
    (GET_CONFIG + "    return helper()\n\ndef helper():\n    return 1 / 0\n", ":8", "ZeroDiv"),
    ("def get_config(name):\n    return name\n", "", "get_config() missing 1 required"),
    ("x = 1\n", "", "get_config"),
    ("get_config = 3\n", "", "not callable"),
    (GET_CONFIG + "    return {'experiment': 'a'}\n", "", "got dict"),
    (GET_CONFIG + "    pass\n", "", "must return an ExperimentConfig, got NoneType"),
    (GET_CONFIG + "    return ExperimentConfig\n", "", "got type"),
])
def test_a_broken_file_is_told_with_its_line(text, line, told, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(text)
    message = refusal(path)
    assert message.startswith(str(path))
    assert line in message and told in message


def test_a_broken_file_named_relatively_is_told_with_its_line(write, tmp_path, monkeypatch):
    write("x = 1\nx.y\n", "broken.py")
    monkeypatch.chdir(tmp_path)
    assert refusal("broken.py").startswith("broken.py:2: AttributeError")


@pytest.mark.parametrize(("returned", "told"), [
    ("ExperimentConfig('a', ModelConfig('x'), train=TrainConfig(epochs=0))",
     "train.epochs must be at least 1, got 0"),
    ("ExperimentConfig('a', ModelConfig('x', filters=[8, 'a']))", "model.filters must be"),
    ("ExperimentConfig('a', 'x')", "model must be ModelConfig, got 'x'"),
    ("ExperimentConfig('a', ModelConfig)", "model must be"),
    ("ExperimentConfig('a', ModelConfig('x'), train=None)", "train must be"),
])
def test_a_config_that_is_not_valid_names_the_field(returned, told, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(f"{GET_CONFIG}    return {returned}\n")
    assert told in refusal(path)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    assert refusal(tmp_path / "none.py") == f"--experiment: there is no file {tmp_path}/none.py"
    (tmp_path / "folder.py").mkdir()
    assert "there is no file" in refusal(tmp_path / "folder.py")
    (tmp_path / "binary.py").write_bytes(b"\x00\xff\x00")
    assert refusal(tmp_path / "binary.py").startswith(str(tmp_path / "binary.py"))


@pytest.mark.parametrize("mode", ["replicate", "predict", "export", "config"])
def test_a_file_is_executed_once(mode, write, launch_here, finished_copy, tmp_path, monkeypatch):
    path = write("""
        from pathlib import Path
        from flaxdigits.experiments import load_experiment
        from flaxdigits.studies.replication import Claim, Replication

        with open(Path(__file__).with_name("executed"), "a") as file:
            file.write("x")

        def get_config():
            return load_experiment("mse_cnn")

        def get_replication():
            return Replication("A paper", (Claim("test_accuracy", 0.9, why="It was."),))
    """)
    monkeypatch.chdir(tmp_path)
    extra = {"replicate": ["--collect_only", f"--workdir={tmp_path / 'out'}"],
             "predict": [f"--workdir={finished_copy}", f"--images={path}"],
             "export": [f"--workdir={finished_copy}"], "config": []}[mode]
    launch_here(f"--mode={mode}", f"--experiment={path}", *extra)
    assert (tmp_path / "executed").read_text() == "x"


def test_listing_executes_nothing_and_survives_a_broken_file(write, tmp_path):
    write("'''good: a title.'''\nraise SystemExit(1)\n", "good.py")
    write("x = (\n", "bad.py")
    write("x = 1\n", "silent.py")
    assert list_experiments(tmp_path) == {"bad": "", "good": "good: a title.", "silent": ""}
