"""`train.objective=distillation`: a student of another run."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from test_checkpoints import opened, refusal  # noqa: F401
from test_objectives import IMAGES, PARAMS, TARGETS, batch_of

from flaxdigits.config import ExperimentConfig, TrainConfig, validate
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.trained import load_network
from flaxdigits.losses import CrossEntropy
from flaxdigits.models import MlpConfig
from flaxdigits.objectives import Distillation, Forward
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.teacher import load_teacher
from flaxdigits.training.weights import split_checkpoint

pytest_plugins = ["tiny_run"]


def student_of(teacher, *others):
    return ["train.objective=distillation", f"train.objective.teacher={teacher}", *others]


def log_softmax(logits, temperature):
    logits = logits.astype(np.float64) / temperature
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_the_loss_is_that_of_the_paper():
    objective = Distillation("a", temperature=2.0, weight=0.3)
    weights = np.random.default_rng(1).normal(0, 0.2, PARAMS["kernel"].shape).astype(np.float32)

    def linear(kernel, images):
        return images.reshape(len(images), -1) @ kernel

    forward = Forward(
        lambda params, images: (linear(params["kernel"], images), {}), CrossEntropy().losses,
        np.mean, lambda tree: tree, lambda images: linear(weights, images))
    (loss, _), gradient = objective.gradient(
        forward, PARAMS, IMAGES, TARGETS, batch_of(np.arange(len(IMAGES))))
    wanted, found = (log_softmax(linear(kernel, IMAGES), 2.0)
                     for kernel in (weights, PARAMS["kernel"]))
    hard = -(TARGETS * log_softmax(linear(PARAMS["kernel"], IMAGES), 1.0)).sum(1)
    soft = (np.exp(wanted) * (wanted - found)).sum(1)
    assert loss == pytest.approx((0.7 * hard + 0.3 * 4 * soft).mean(), rel=1e-5)
    assert np.abs(gradient["kernel"]).max() > 0


def test_a_student_approaches_the_outputs_of_its_teacher(
    finished, train_tiny, tiny_data, opened, tmp_path  # noqa: F811
):
    def distance(run):
        images = tiny_data.images[:100]
        wanted, found = (log_softmax(np.asarray(load_network(folder).logits(images)), 4.0)
                         for folder in (finished, run))
        return (np.exp(wanted) * (wanted - found)).sum(1).mean()

    recipe = student_of(finished, "train.objective.weight=1", "seed=7", "train.steps=80")
    train_tiny(tmp_path / "start", *recipe, "train.stop_after=2", "optimizer.learning_rate=1e-9")
    train_tiny(tmp_path / "end", *recipe, "optimizer.learning_rate=0.05")
    assert distance(tmp_path / "end") < 0.2 * distance(tmp_path / "start")
    saved = opened(tmp_path / "end" / "checkpoints").restore_arrays(80)
    plain = opened(finished / "checkpoints").restore_arrays(6)
    assert jax.tree.structure(saved) == jax.tree.structure(plain), "no teacher in a checkpoint"


def test_a_student_is_resumed_bitwise_and_scored_without_its_teacher(
    finished_copy, train_tiny, launch_here, opened, tmp_path  # noqa: F811
):
    recipe = student_of(finished_copy, "seed=3")
    train_tiny(tmp_path / "whole", *recipe)
    train_tiny(tmp_path / "halted", *recipe, "train.stop_after=3")
    elsewhere = shutil.move(finished_copy, tmp_path / "moved")
    assert train_tiny(tmp_path / "halted", *student_of(elsewhere, "seed=3")).step == 6
    whole, halted = (opened(tmp_path / name / "checkpoints").restore_arrays(6)
                     for name in ("whole", "halted"))
    jax.tree.map(np.testing.assert_array_equal, whole, halted)

    shutil.rmtree(elsewhere)
    assert launch_here("--mode=eval", f"--workdir={tmp_path / 'halted'}").returncode == 0
    assert train_tiny(tmp_path / "halted", *recipe).result is not None, "it has ended"


def test_a_resumed_student_refuses_another_teacher(finished, train_tiny, tmp_path):
    train_tiny(tmp_path / "other", "seed=5")
    student = tmp_path / "student"
    train_tiny(student, *student_of(finished, "train.stop_after=2"))
    digest = json.loads((student / "config.json").read_text())["teacher"]
    assert len(digest) == 64
    for teacher in (tmp_path / "other", f"{finished}@2"):
        said = refusal(train_tiny, student, *student_of(teacher))
        assert "the weights of train.objective.teacher have changed since the run started" in said


def test_the_best_checkpoint_or_a_step_can_be_the_teacher(finished, train_tiny, tmp_path):
    digests = []
    for which in ("", "@last", "@6", "@2"):
        workdir = tmp_path / f"student{which}"
        train_tiny(workdir, *student_of(f"{finished}{which}", "train.steps=1"))
        digests.append(json.loads((workdir / "config.json").read_text())["teacher"])
    assert len(set(digests[:3])) == 1 and digests[3] != digests[0]
    train_tiny(tmp_path / "best", *student_of(f"{finished}@best", "train.steps=1"))
    assert "has no checkpoint '5': expected last, best or one of the steps 2, 4, 6" in refusal(
        train_tiny, tmp_path / "none", *student_of(f"{finished}@5"))
    assert split_checkpoint("a@b/run") == ("a@b/run", "last")
    assert split_checkpoint("a@b/run@best") == ("a@b/run", "best")


@pytest.mark.parametrize(("changes", "said"), [
    (["train.objective.teacher={tmp_path}/none"], "train.objective.teacher: {tmp_path}/none: not"),
    (["data.preprocessing=raw"], "was trained with data.preprocessing=unit, and this run has raw"),
])
def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_written(
    changes, said, finished, train_tiny, tmp_path
):
    changes = [change.format(tmp_path=tmp_path) for change in changes]
    message = refusal(train_tiny, tmp_path / "student", *student_of(finished), *changes)
    assert said.format(tmp_path=tmp_path) in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("changes", "said"), [
    ({"class_names": tuple("abcd")}, "images of 28x28x1 and 4 classes: "),
    ({"images": np.zeros((270, 20, 20, 3), np.uint8)}, "images of 20x20x3 and 10 classes: "),
])
def test_a_teacher_of_other_images_or_classes_is_refused(
    changes, said, finished, tiny_config, tiny_data
):
    config = apply_overrides(tiny_config, student_of(finished))
    message = refusal(load_teacher, config, dataclasses.replace(tiny_data, **changes))
    assert message.startswith(f"train.objective.teacher: {finished} cannot teach a run on {said}")


def test_a_teacher_must_be_named():
    config = ExperimentConfig("a", MlpConfig(), train=TrainConfig(objective=Distillation()))
    with pytest.raises(FlaxdigitsError, match=r"train\.objective\.teacher must name the run"):
        validate(config)
