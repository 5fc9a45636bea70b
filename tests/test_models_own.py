"""Custom models in an experiment file outside the repository."""

import json

import numpy as np
import pytest
from PIL import Image

pytest_plugins = ["tiny_run"]


OWN = """
    '''mine: a single dense layer, to show a custom experiment.'''

    from __future__ import annotations

    import flax.linen as nn
    import jax

    from flaxdigits.components import bounded
    from flaxdigits.config import ExperimentConfig, TrainConfig
    from flaxdigits.models import register
    from flaxdigits.optimizers import SGD


    @register("own_net")
    class OwnNet(nn.Module):
        num_classes: int
        scale: float = bounded(1.0, above=0)
        bias: bool | None = None

        @nn.compact
        def __call__(self, images, training=None):
            flat = images.reshape(len(images), -1)
            return self.scale * nn.Dense(self.num_classes, use_bias=bool(self.bias))(flat)


    def get_config() -> ExperimentConfig:
        return ExperimentConfig(
            "mine", OwnNet.Config(scale=2.0, bias=True),
            optimizer=SGD(learning_rate=0.1),
            train=TrainConfig(batch_size=50, steps=8))
"""


@pytest.fixture
def own_run(write, registries, launch_here, idx_folder, tmp_path):
    """An experiment file outside the repository, and the folder of its run."""
    path, workdir = write(OWN), tmp_path / "run"
    completed = launch_here(
        f"--experiment={path}", f"--workdir={workdir}", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", "--set=data.split=holdout", "--set=model.scale=0.5")
    assert completed.returncode == 0, completed.stderr
    return path, workdir


def test_a_custom_experiment_file_is_trained_and_evaluated(own_run, launch_here):
    path, workdir = own_run
    result = json.loads((workdir / "result.json").read_text())
    assert result["experiment"] == "mine" and result["steps"] == 8
    assert result["parameters"] == 28 * 28 * 10 + 10
    assert result["test_accuracy"] > 0.5, "bright bars in noise are easy"
    recorded = json.loads((workdir / "config.json").read_text())["config"]["model"]
    assert recorded["scale"] == 0.5 and recorded["bias"] is True

    completed = launch_here("--mode=eval", f"--workdir={workdir}", f"--experiment={path}")
    assert completed.returncode == 0, completed.stderr
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
    write, registries, launch_here, idx_folder, tmp_path
):
    completed = train_least(write, launch_here, idx_folder, tmp_path)
    assert completed.returncode == 0, completed.stderr
    picture = np.full((40, 40), 255, np.uint8)
    picture[10:30, 18:22] = 0
    Image.fromarray(picture).save(tmp_path / "one.png")
    read = launch_here("--mode=predict", f"--workdir={tmp_path / 'run'}",
                       f"--experiment={tmp_path / 'mine.py'}", f"--images={tmp_path / 'one.png'}")
    assert read.returncode == 0 and "one.png" in read.stdout, read.stderr


@pytest.mark.parametrize("change, message", [
    ({"config": "filters=(8,)"}, "model.filters: the model least has no such field"),
    ({"fields": "depth: int\n"}, "the field depth of Least needs a default"),
    ({"logits": "11"}, "Least returns [2, 11] for 2 images; it must return logits, [2, 10]"),
])
def test_a_custom_model_that_does_not_fit_is_an_error(
    change, message, write, registries, launch_here, idx_folder, tmp_path
):
    completed = train_least(write, launch_here, idx_folder, tmp_path, **change)
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert message in completed.stderr
    assert not (tmp_path / "run").exists()


def test_a_custom_model_is_initialized_from_the_weights_of_a_run(own_run, launch_here, tmp_path):
    path, workdir = own_run
    completed = launch_here(
        f"--experiment={path}", f"--workdir={tmp_path / 'second'}", *own_data(workdir),
        "--set=model.scale=0.5", f"--set=train.init_from={workdir}", "--set=train.steps=1",
        "--set=optimizer.learning_rate=1e-9")
    assert completed.returncode == 0, completed.stderr
    second = json.loads((tmp_path / "second" / "result.json").read_text())
    first = json.loads((workdir / "result.json").read_text())
    assert second["test_loss"] == pytest.approx(first["test_loss"], rel=1e-5)


def test_a_run_with_a_custom_model_is_evaluated_while_its_file_is_the_same(own_run, launch):
    _, workdir = own_run
    completed = launch("--mode=eval", f"--workdir={workdir}")
    assert completed.returncode == 0 and "test accuracy" in completed.stdout, completed.stderr
