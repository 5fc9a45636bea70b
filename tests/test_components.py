"""The user's own components: what is refused when they are registered, and before training."""

import dataclasses
import functools
import json
import random
import time
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flaxdigits
from flaxdigits.augmentations import Augmentation, Cutout
from flaxdigits.components import bounded, register
from flaxdigits.config import DataConfig, EvaluateConfig, ExperimentConfig, TrainConfig, validate
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.losses import Loss
from flaxdigits.metrics import Metric
from flaxdigits.models import MlpConfig, Model
from flaxdigits.objectives import Objective
from flaxdigits.optimizers import Optimizer
from flaxdigits.overrides import apply_overrides
from flaxdigits.schedules import Schedule
from flaxdigits.training.component_checks import RunShape, check_components

pytest_plugins = ["tiny_run"]
pytestmark = pytest.mark.usefixtures("registries")

RUN = RunShape((8, 8, 3), 5, 100, 10)


# --- what register refuses -----------------------------------------------------------------------

@pytest.mark.parametrize("hint", [
    list, list[int], dict, tuple, tuple[int, int], Any, Literal[1, 2], np.ndarray, object,
    tuple[tuple[int, ...], ...], tuple[float | None, ...], Cutout | None, set[str]], ids=str)
def test_a_field_of_a_type_that_cannot_be_parsed_is_refused(hint):
    cls = dataclasses.make_dataclass(
        "Own", [("size", hint, dataclasses.field(default=None))], bases=(Loss,), frozen=True)
    with pytest.raises(FlaxdigitsError, match="the field size of Own has the type") as error:
        register("own")(cls)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("hint", "default", "text", "value"), [
    (int, 1, "2", 2), (float, 1.0, "2", 2.0), (str, "a", "b", "b"), (bool, False, "true", True),
    (Literal["a", "b"], "a", "b", "b"), (tuple[float, ...], (), "1,2", (1.0, 2.0)),
    (tuple[str, ...], (), "a,b", ("a", "b")), (int | None, 1, "none", None),
    (tuple[int, ...] | None, None, "1,2", (1, 2)), (tuple[int, ...] | None, (1,), "none", None)])
def test_every_other_type_is_set_by_its_text(hint, default, text, value):
    cls = dataclasses.make_dataclass(
        "Own", [("size", hint, dataclasses.field(default=default))], bases=(Loss,), frozen=True)
    config = ExperimentConfig("a", MlpConfig(), train=TrainConfig(loss=register("own")(cls)()))
    changed = apply_overrides(config, [f"train.loss.size={text}"]).train.loss.size
    assert changed == value and type(changed) is type(value)
    if isinstance(value, tuple):
        assert [type(item) for item in changed] == [type(item) for item in value]


def test_a_type_within_a_group_of_fields_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Group:
        sizes: list = dataclasses.field(default_factory=list)

    with pytest.raises(FlaxdigitsError, match="the field sizes of Group has the type list"):
        @register("own")
        @dataclasses.dataclass(frozen=True)
        class Own(Loss):
            group: Group = Group()


def test_a_linen_module_is_registered_through_the_package():
    @flaxdigits.models.register("own_net")
    class OwnNet(nn.Module):
        num_classes: int
        width: int = bounded(8, at_least=1)

        @nn.compact
        def __call__(self, images, training):
            hidden = nn.Dense(self.width)(images.reshape(len(images), -1))
            return nn.Dense(self.num_classes)(hidden)

    config = ExperimentConfig("a", OwnNet.Config(width=3))
    assert config.model.build(5).width == 3 and config.model.build(5).num_classes == 5
    assert apply_overrides(config, ["model.width=4"]).model == OwnNet.Config(width=4)
    with pytest.raises(FlaxdigitsError, match=r"model\.width must be at least 1, got 0"):
        validate(ExperimentConfig("a", OwnNet.Config(width=0)))
    check_components(config, RUN)


@pytest.mark.parametrize(("cls", "message"), [
    (dict, "must be a subclass of flax.linen.Module or of flaxdigits.models.Model"),
    (type("Net", (nn.Module,), {"__annotations__": {"sizes": list}, "sizes": None}),
     "the field sizes of Net has the type list"),
    (type("Net", (nn.Module,), {"__annotations__": {"width": int}}),
     "the field width of Net needs a default"),
])
def test_other_models_are_refused(cls, message):
    with pytest.raises(FlaxdigitsError, match=message):
        flaxdigits.models.register("own")(cls)


# --- what is refused before training -------------------------------------------------------------

def fail(*arguments):
    raise ValueError("not today\nor tomorrow")


def own(base: type, method: str, function) -> Any:
    """An object of a registered subclass of `base` with this method."""
    cls = type("Own", (base,), {method: lambda self, *arguments: function(*arguments)})
    return register("own")(dataclasses.dataclass(frozen=True)(cls))()


def linear(num_classes, call):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, images, training):
            flat = images.reshape(len(images), -1)
            return call(nn.Dense(num_classes)(flat), training)

    return Net()


FAULTS = {
    "loss raises": (Loss, "losses", fail, "train.loss: own raises ValueError: not today"),
    "one loss for all": (Loss, "losses", lambda logits, targets: (logits * targets).sum(),
                         "train.loss: own must return a float array of shape [4], got []"),
    "metric raises": (Metric, "compute", fail, "evaluate.metrics: own raises ValueError"),
    "metric by class": (Metric, "compute", lambda logits, labels: logits.mean(0),
                        "evaluate.metrics: own must return a number, got an array of shape [5]"),
    "no metric": (Metric, "compute", lambda logits, labels: None, "must return a number, got None"),
    "text": (Metric, "compute", lambda logits, labels: "0.5", "must return a number, got '0.5'"),
    "augmentation raises": (Augmentation, "augment", fail, "data.augmentation.0: own raises"),
    "smaller image": (Augmentation, "augment", lambda image, key: image[1:],
                      "must return a float array of shape [8, 8, 3], got [7, 8, 3]"),
    "integers": (Augmentation, "augment", lambda image, key: image.astype(jnp.uint8), "uint8"),
    "objective raises": (Objective, "inputs", fail, "train.objective: own raises ValueError"),
    "no logits": (Objective, "loss", lambda forward, params, images, targets: (
        forward.loss(params, images, targets)[0], (images, {})),
        "train.objective: own must return a float array of shape [4, 5], got [4, 8, 8, 3]"),
    "schedule raises": (Schedule, "build", fail, "optimizer.schedule: own raises ValueError"),
    "no schedule": (Schedule, "build", lambda peak, total, epoch: peak, "must build a function"),
    "no rate": (Schedule, "build", lambda peak, total, epoch: lambda step: None, "got None"),
    "optimizer raises": (Optimizer, "build", fail, "optimizer: own raises ValueError"),
    "no optimizer": (Optimizer, "build", lambda rate: rate, "must build an optax.Gradient"),
    "model raises": (Model, "build", fail, "model: own raises ValueError: not today"),
    "no model": (Model, "build", lambda classes: None, "must build a flax.linen.Module, got None"),
    "no parameters": (Model, "build", lambda classes: nn.Sequential((
        lambda images, _: jnp.zeros((len(images), classes)),)), "has no parameters to train"),
    "more logits": (Model, "build", lambda classes: linear(classes + 1, lambda x, _: x),
                    "returns [2, 6] for 2 images; it must return logits, [2, 5]"),
    "other logits in training": (Model, "build", lambda classes: linear(
        classes, lambda x, training: x if training is None else x[:, :1]), "got [4, 1]"),
}
PLACES = {
    Loss: lambda it: {"train": TrainConfig(loss=it)},
    Metric: lambda it: {"evaluate": EvaluateConfig(metrics=(it,))},
    Augmentation: lambda it: {"data": DataConfig(augmentation=(it,))},
    Objective: lambda it: {"train": TrainConfig(objective=it)},
    Schedule: lambda it: {"optimizer": flaxdigits.optimizers.Adam(schedule=it)},
    Optimizer: lambda it: {"optimizer": it},
    Model: lambda it: {"model": it},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_component_that_does_not_work_is_found_before_training(fault):
    base, method, function, message = FAULTS[fault]
    sections = {"model": MlpConfig()} | PLACES[base](own(base, method, function))
    config = validate(ExperimentConfig("a", **sections))
    with pytest.raises(FlaxdigitsError) as error:
        check_components(config, RUN)
    assert message in str(error.value) and "\n" not in str(error.value)
    if function is fail:
        assert f"{__file__}:" in str(error.value), "the message names file and line"


CHOICES = iter([1.0, 1.0, 1.0, 2.0] * 4)
UNREPEATABLE = {
    "numpy.random": lambda: np.random.rand(),
    "random": lambda: random.random(),
    "a choice": lambda: 1.0 if random.random() < 2 else 2.0,  # by chance always the same
    "default_rng": lambda: np.random.default_rng().random(),
    "a choice of default_rng": lambda: next(CHOICES),
    "an array": lambda: np.random.default_rng().random((8, 8, 3)).astype(np.float32).sum(),
    "time": lambda: time.perf_counter_ns() % 1e6 / 1e6,  # float32 has 24 bits
}


@pytest.mark.parametrize("source", UNREPEATABLE)
def test_random_values_that_would_be_constants_of_the_step_are_an_error(source):
    value = UNREPEATABLE[source]
    augmentation = own(Augmentation, "augment", lambda image, key: image * value())
    config = ExperimentConfig("a", MlpConfig(), DataConfig(augmentation=(augmentation,)))
    with pytest.raises(FlaxdigitsError) as error:
        check_components(validate(config), RUN)
    assert str(error.value).startswith("data.augmentation.0: own uses a value of numpy.random, ")
    assert "use jax.random" in str(error.value) and "\n" not in str(error.value)


def test_an_array_of_an_earlier_trace_is_an_error_that_says_so():
    kept = functools.cache(lambda shape: jnp.ones(shape) * 1.5)
    augmentation = own(Augmentation, "augment", lambda image, key: image * kept(image.shape))
    config = ExperimentConfig("a", MlpConfig(), DataConfig(augmentation=(augmentation,)))
    with pytest.raises(FlaxdigitsError, match=(
            r"^data\.augmentation\.0: own raises UnexpectedTracerError: an array is kept from one "
            "call to the next, for instance by functools.cache; keep a NumPy array instead")):
        check_components(validate(config), RUN)


@pytest.mark.parametrize("base", [Loss, Objective, Schedule, Optimizer, Model])
def test_values_of_numpy_random_are_refused_in_every_kind_of_component(base):
    def value():
        return np.random.default_rng().random(dtype=np.float32)

    method, function, path = {
        Loss: ("losses", lambda logits, targets: (logits * targets).sum(1) * value(),
               "train.loss"),
        Objective: ("inputs", lambda batch: jax.tree.map(
            lambda array: array * value(), batch.load(batch.positions)), "train.objective"),
        Schedule: ("build", lambda peak, *_: optax.constant_schedule(value() * peak),
                   "optimizer.schedule"),
        Optimizer: ("build", lambda rate: optax.stateless(lambda updates, _: jax.tree.map(
            lambda array: array * value(), updates)), "optimizer"),
        Model: ("build", lambda classes: linear(classes, lambda x, _: x * value()), "model"),
    }[base]
    sections = {"model": MlpConfig((4,))} | PLACES[base](own(base, method, function))
    with pytest.raises(FlaxdigitsError, match=rf"{path}: own uses a value of numpy\.random"):
        check_components(validate(ExperimentConfig("a", **sections)), RUN)


def test_a_metric_that_cannot_be_repeated_is_an_error():
    metric = own(Metric, "compute", lambda logits, labels: np.random.default_rng().random())
    config = ExperimentConfig("a", MlpConfig(), evaluate=EvaluateConfig(metrics=(metric,)))
    with pytest.raises(FlaxdigitsError, match=r"own returns .* for the same logits: give its"):
        check_components(validate(config), RUN)


@pytest.mark.parametrize(("function", "advice"), [
    (lambda logits, targets: logits.sum(1) if logits.max() > 0 else targets.sum(1), "jnp.where"),
    (lambda logits, targets: np.sum(logits, 1) + np.asarray(targets)[:, 0], "use jax.numpy"),
    (lambda logits, targets: logits[:, 0] * float(targets.sum()), "cannot depend on the values"),
    (lambda logits, targets: logits[logits > 0], "a mask cannot be an index; use jnp.where"),
])
def test_code_that_cannot_be_traced_is_an_error_with_its_line_and_what_to_use(function, advice):
    config = ExperimentConfig("a", MlpConfig(), train=TrainConfig(loss=own(
        Loss, "losses", function)))
    with pytest.raises(FlaxdigitsError) as error:
        check_components(validate(config), RUN)
    assert str(error.value).startswith("train.loss: own raises ")
    assert advice in str(error.value) and f"({__file__}:" in str(error.value)


def test_components_that_work_are_accepted():
    working = {
        Loss: ("losses", optax.softmax_cross_entropy),
        Metric: ("compute", lambda logits, labels: np.float32(len(labels))),
        Augmentation: ("augment", lambda image, key: jax.nn.relu(
            image - jax.random.uniform(key) * np.random.default_rng(0).random((8, 8, 3)))),
        Objective: ("inputs", lambda batch: batch.load(batch.partners())),
        Schedule: ("build", lambda peak, total, epoch: lambda step: peak),
        Optimizer: ("build", lambda rate: optax.sgd(rate)),
        Model: ("build", lambda classes: linear(classes, lambda x, _: x)),
    }
    for base, (method, function) in working.items():
        sections = {"model": MlpConfig()} | PLACES[base](own(base, method, function))
        check_components(validate(ExperimentConfig("a", **sections)), RUN)


METRIC = """
    import dataclasses
    from flaxdigits.components import register
    from flaxdigits.config import EvaluateConfig, ExperimentConfig
    from flaxdigits.metrics import Metric
    from flaxdigits.models import MlpConfig

    @register("by_class")
    @dataclasses.dataclass(frozen=True)
    class ByClass(Metric):
        def compute(self, logits, labels):
            return logits.mean(0)

    def get_config():
        return ExperimentConfig(
            "own", MlpConfig((4,)), evaluate=EvaluateConfig(metrics=(ByClass(),)))
"""


def test_the_command_ends_before_it_writes(write, launch_here, idx_folder, tmp_path):
    completed = launch_here(
        f"--experiment={write(METRIC)}", f"--workdir={tmp_path / 'run'}", "--set=train.steps=2",
        "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1, completed.stderr
    assert "by_class must return a number, got an array of shape [10]" in completed.stderr
    assert not (tmp_path / "run").exists()


STUDY = """
    from flaxdigits.studies.study import Study

    def get_study():
        return Study(
            experiment="dense_cnn", seeds=(0,),
            overrides=("data.dataset=idx_files", "data.folder={folder}", "data.split=holdout",
                       "train.steps=2", "model.filters=2", "model.dense=4"),
            grid={{"model": ("dense_cnn", "lenet5", "mlp")}})
"""


@pytest.mark.slow
def test_architectures_are_compared_by_one_line_of_a_study(
    write, launch_here, idx_folder, tmp_path
):
    study = write(STUDY.format(folder=idx_folder), "study.py")
    completed = launch_here(f"--ablation={study}", f"--workdir={tmp_path / 'study'}")
    assert completed.returncode == 0, completed.stderr
    rows = json.loads((tmp_path / "study/study.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["base", "model=lenet5", "model=mlp"]
    models = [json.loads((tmp_path / "study" / name / "seeds/0/config.json").read_text())
              ["config"]["model"] for name in ("base", "model_lenet5", "model_mlp")]
    assert models == [
        {"name": "dense_cnn", "filters": [2], "dense": [4], "dropout": [0.1], "batch_norm": False},
        {"name": "lenet5", "activation": "tanh"}, {"name": "mlp", "dense": [4], "dropout": 0.2}]
