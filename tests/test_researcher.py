"""A researcher's experiment file: components of every kind, trained, resumed, scored, varied."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from flaxdigits.components import register
from flaxdigits.config import EvaluateConfig, ExperimentConfig, to_dict, validate
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.losses import CrossEntropy
from flaxdigits.metrics import Metric
from flaxdigits.models import DenseCnnConfig
from flaxdigits.optimizers import Optimizer
from flaxdigits.training.scores import score

pytest_plugins = ["tiny_run"]
pytestmark = pytest.mark.usefixtures("registries")


EXPERIMENT = """
    '''own: an optimizer, schedule, loss, augmentation, objective, data set, metric and model.'''

    import dataclasses

    import flax.linen as nn
    import flaxdigits
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flaxdigits.augmentations import Augmentation
    from flaxdigits.components import bounded, register
    from flaxdigits.config import (
        DataConfig, EvaluateConfig, ExperimentConfig, TrainConfig)
    from flaxdigits.losses import Loss
    from flaxdigits.metrics import Metric
    from flaxdigits.objectives import Objective
    from flaxdigits.optimizers import Optimizer
    from flaxdigits.schedules import Schedule


    @register("sign_descent")
    @dataclasses.dataclass(frozen=True)
    class SignDescent(Optimizer):
        decay: float = bounded(0.9, at_least=0, below=1)

        def build(self, learning_rate):
            return optax.chain(optax.trace(self.decay), optax.scale_by_sign(),
                               optax.scale_by_learning_rate(learning_rate))


    @register("halves")
    @dataclasses.dataclass(frozen=True)
    class Halves(Schedule):
        every: int = bounded(3, at_least=1)

        def build(self, peak, total_steps, steps_per_epoch):
            return lambda step: peak * 0.5 ** (step // self.every)


    @register("hinge")
    @dataclasses.dataclass(frozen=True)
    class Hinge(Loss):
        margin: float = bounded(1.0, above=0)

        def losses(self, logits, targets):
            gap = logits - (logits * targets).sum(-1, keepdims=True) + self.margin
            return jnp.where(targets > 0, 0, jnp.maximum(gap, 0)).sum(-1)


    @register("dimmed")
    @dataclasses.dataclass(frozen=True)
    class Dimmed(Augmentation):
        most: float = bounded(0.3, at_least=0, at_most=1)

        def augment(self, image, key):
            return image * (1 - self.most * jax.random.uniform(key))


    @register("confident")
    @dataclasses.dataclass(frozen=True)
    class Confident(Objective):
        weight: float = bounded(0.01, at_least=0)

        def loss(self, forward, params, images, targets):
            loss, (logits, state) = forward.loss(params, images, targets)
            entropy = -(nn.softmax(logits) * nn.log_softmax(logits)).sum(-1)
            return loss + self.weight * forward.mean(entropy), (logits, state)


    @register("worst_class")
    @dataclasses.dataclass(frozen=True)
    class WorstClass(Metric):
        def compute(self, logits, labels):
            correct = logits.argmax(1) == labels
            return float(min(correct[labels == label].mean() for label in np.unique(labels)))


    @flaxdigits.datasets.register("stripes")
    def load_stripes(config):
        random = np.random.default_rng(0)
        labels = random.integers(0, 4, 300)
        images = random.integers(0, 80, (300, 16, 16)).astype(np.uint8)
        for image, label in zip(images, labels):
            image[4 * label:4 * label + 4] += 120
        return flaxdigits.DataArrays(images, labels, class_names=["a", "b", "c", "d"], train=240)


    @flaxdigits.models.register("wide")
    class Wide(nn.Module):
        num_classes: int
        dense: tuple[int, ...] = (32,)

        @nn.compact
        def __call__(self, images, training=None):
            hidden = nn.relu(nn.Dense(self.dense[0])(images.reshape(len(images), -1)))
            return nn.Dense(self.num_classes)(hidden)


    def get_config():
        return ExperimentConfig(
            "own", Wide.Config(dense=(16,)),
            data=DataConfig("stripes", "holdout", augmentation=(Dimmed(),)),
            optimizer=SignDescent(learning_rate=0.002, schedule=Halves()),
            train=TrainConfig(batch_size=50, steps=8, loss=Hinge(), objective=Confident()),
            evaluate=EvaluateConfig(metrics=(WorstClass(),)))
"""


STUDY = """
    from flaxdigits.studies.study import Study

    def get_study():
        return Study(
            experiment="mine.py", seeds=(0, 1), metric="validation_worst_class",
            extra_metrics=("test_loss",),
            overrides=("data.dataset=idx_files", "data.folder={folder}", "data.split=holdout"),
            variants={{
                "built-in optimizer": ("optimizer=adamw", "optimizer.learning_rate=0.01"),
                "larger margin": ("train.loss.margin=2",),
                "no augmentation": ("data.augmentation=none",)}})
"""


@pytest.fixture
def own(write):
    """The experiment file."""
    return write(EXPERIMENT)


def test_custom_components_are_trained_resumed_and_evaluated_in_a_new_process(
    own, launch_here, launch, tmp_path
):
    path = own
    command = [f"--experiment={path}", "--set=optimizer.decay=0.8"]
    whole = launch_here(*command, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr

    halted = [*command, f"--workdir={tmp_path / 'halted'}"]
    assert launch_here(*halted, "--set=train.stop_after=3").returncode == 0
    assert launch_here(*halted).returncode == 0
    results = [json.loads((tmp_path / name / "result.json").read_text())
               for name in ("whole", "halted")]
    kept = [{name: value for name, value in result.items() if "second" not in name}
            for result in results]
    assert kept[0] == kept[1]
    assert 0 <= kept[0]["test_worst_class"] <= kept[0]["test_accuracy"]
    assert (kept[0]["dataset"], kept[0]["test_examples"]) == ("stripes", 60)
    last = json.loads((tmp_path / "whole/metrics.jsonl").read_text().splitlines()[-1])
    assert "validation_worst_class" in last

    config = json.loads((tmp_path / "whole/config.json").read_text())["config"]
    assert config["optimizer"] == {
        "name": "sign_descent", "learning_rate": 0.002,
        "schedule": {"name": "halves", "every": 3}, "clip_norm": None, "decay": 0.8}

    scored = launch("--mode=eval", f"--workdir={tmp_path / 'whole'}")
    assert scored.returncode == 0, scored.stderr
    row = json.loads((tmp_path / "whole/eval.jsonl").read_text())
    assert row["test_worst_class"] == kept[0]["test_worst_class"]

    # The run is moved to a place where the experiment file does not exist.
    elsewhere = shutil.copytree(tmp_path / "whole", tmp_path / "elsewhere" / "run")
    path.unlink()
    lost = launch("--mode=eval", f"--workdir={elsewhere}")
    assert lost.returncode == 2 and lost.stderr.count("\n") == 1
    copy = elsewhere / "code" / "mine.py"
    assert f"{path}, which does not exist" in lost.stderr
    assert f"pass experiment={copy}\n" in lost.stderr
    found = launch("--mode=eval", f"--workdir={elsewhere}", f"--experiment={copy}")
    assert found.returncode == 0 and found.stdout == scored.stdout, found.stderr


@pytest.mark.slow
def test_custom_components_are_varied_in_a_study(own, write, idx_folder, launch_here, tmp_path):
    study = write(STUDY.format(folder=idx_folder), "study.py")
    completed = launch_here(f"--ablation={study}", f"--workdir={tmp_path / 'study'}")
    assert completed.returncode == 0, completed.stderr
    rows = json.loads((tmp_path / "study/study.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == [
        "base", "built-in optimizer", "larger margin", "no augmentation"]
    result = json.loads((tmp_path / "study/base/seeds/0/result.json").read_text())
    assert rows[0]["values"]["0"] == result["validation_worst_class"]
    table = (tmp_path / "study/study.md").read_text()
    assert "validation worst class, %" in table and "| test loss |" in table

    study.write_text(study.read_text().replace("worst_class", "no_class"))
    completed = launch_here(f"--ablation={study}", f"--workdir={tmp_path / 'other'}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert ("metric must be a name such as test_accuracy: a split followed by one of accuracy, "
            "loss, errors, worst_class"
            in completed.stderr)


@pytest.mark.parametrize(("assignment", "message"), [
    ("optimizer.decay=1", "optimizer.decay must be below 1, got 1.0"),
    ("optimizer.momentum=0.9", "the optimizer sign_descent has no such field; it has "),
    ("train.loss=hing", "did you mean hinge?"),
    ("data.augmentation.dimmed.most=2", "data.augmentation.dimmed.most must be at most 1"),
])
def test_custom_components_are_checked_like_built_in_ones(own, launch_here, assignment, message):
    completed = launch_here(f"--experiment={own}", f"--set={assignment}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert message in completed.stderr


# --- what register refuses -----------------------------------------------------------------------

def test_a_name_of_the_package_cannot_be_taken():
    with pytest.raises(FlaxdigitsError, match="flaxdigits already has an optimizer of this name"):
        @register("adam")
        @dataclasses.dataclass(frozen=True)
        class Adam(Optimizer):
            pass


@pytest.mark.parametrize("name", ["", "1st", "a,b", "optax.mine", "a=b", "none"])
def test_a_name_that_could_not_be_chosen_is_refused(name):
    with pytest.raises(FlaxdigitsError, match="the name must consist of letters"):
        register(name)(Optimizer)


def test_a_metric_cannot_replace_the_accuracy_and_returns_a_number():
    @register("errors")
    @dataclasses.dataclass(frozen=True)
    class Errors(Metric):
        def compute(self, logits, labels):
            return None

    config = ExperimentConfig("a", DenseCnnConfig(), evaluate=EvaluateConfig(metrics=(Errors(),)))
    with pytest.raises(FlaxdigitsError, match="not be one of accuracy, loss, errors"):
        validate(config)
    with pytest.raises(FlaxdigitsError, match="errors must return a number, got None"):
        score(np.zeros((2, 3), np.float32), np.array([0, 1]), CrossEntropy(), (Errors(),))


def test_only_frozen_dataclasses_of_a_kind_with_defaults_are_registered():
    class Plain(Optimizer):
        pass

    @dataclasses.dataclass(frozen=True)
    class Needy(Optimizer):
        size: int = dataclasses.field(kw_only=True)

    @dataclasses.dataclass(frozen=True)
    class Named(Optimizer):
        name: str = "other"

    for cls, message in ((Plain, "frozen=True"), (Needy, "the field size of Needy needs a default"),
                      (Named, "cannot have a field name"),
                      (dict, "must be a subclass of a kind")):
        with pytest.raises(FlaxdigitsError, match=message):
            register("mine")(cls)
    config = ExperimentConfig("a", DenseCnnConfig(), optimizer=Needy(size=3))
    with pytest.raises(FlaxdigitsError, match="optimizer: Needy is not registered"):
        validate(config)
    assert to_dict(ExperimentConfig("a", DenseCnnConfig()))["optimizer"]["name"] == "adam"
