"""`--set name=value`: every kind of value, and messages that name an invalid field."""

import dataclasses
from typing import Literal

import pytest

from flaxdigits.augmentations import Affine, Cutout, Elastic, Noise
from flaxdigits.components import register
from flaxdigits.config import ExperimentConfig, ModelConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.losses import CrossEntropy, Loss
from flaxdigits.models import (
    DenseCnnConfig,
    LeNet5Config,
    MlpConfig,
    Model,
    MseCnnConfig,
    ResNetConfig,
)
from flaxdigits.optimizers import SGD, RMSprop
from flaxdigits.overrides import apply_overrides, field_names
from flaxdigits.schedules import Constant, Cosine, InverseTime

pytestmark = pytest.mark.quick


def base() -> ExperimentConfig:
    return ExperimentConfig("a", ModelConfig("dense_cnn", filters=(8,), dropout=(0.5,)))


def value_after(assignment, config=None):
    """The value of the field that the assignment names, afterwards."""
    config = apply_overrides(config or base(), [assignment])
    for part in assignment.partition("=")[0].strip().split("."):
        config = getattr(config, part)
    return config


def refusal(*assignments, config=None) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        apply_overrides(config or base(), assignments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("assignment", "expected"), [
    ("seed=7", 7),
    ("train.epochs=5", 5),
    (" train.epochs = 5 ", 5),
    ("train.steps=100", 100),
    ("train.steps=none", None),
    ("train.steps=None", None),
    ("optimizer.learning_rate=1e-2", 0.01),
    ("optimizer.learning_rate=1", 1.0),
    ("optimizer.clip_norm=1", 1.0),
    ("optimizer.clip_norm=none", None),
    ("optimizer.name=sgd", "sgd"),
    ("optimizer.schedule.name=cosine", "cosine"),
    ("optimizer.schedule.warmup_steps=3", 3),
    ("train.loss.label_smoothing=0.1", 0.1),
    ("train.deterministic=true", True),
    ("train.deterministic=False", False),
    ("train.init_from=runs/a", "runs/a"),
    ("train.init_from=none", None),
    ("train.init_from=odd=name", "odd=name"),
    ("model.filters=16,32,64", (16, 32, 64)),
    ("model.filters=(16, 32)", (16, 32)),
    ("model.filters=[16]", (16,)),
    ("model.filters=16,", (16,)),
    ("model.filters=", ()),
    ("model.dropout=.5", (0.5,)),
    ("checkpoint.keep=none", None),
    ("checkpoint.every_steps=20", 20),
    ("train.parallel=pmap", "pmap"),
    ("data.split=kaggle", "kaggle"),
    ("experiment=mine", "mine"),
])
def test_values(assignment, expected):
    value = value_after(assignment)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(("assignment", "message"), [
    ("train.epochs=three", "train.epochs must be an integer, got 'three'"),
    ("train.epochs=1.5", "train.epochs must be an integer, got '1.5'"),
    ("train.epochs=", "train.epochs must be an integer, got ''"),
    ("train.epochs=none", "train.epochs must be an integer, got 'none'"),
    ("train.epochs=0", "train.epochs must be at least 1, got 0"),
    ("train.steps=many", "train.steps must be an integer or none, got 'many'"),
    ("seed=4294967296", "seed must be below 4294967296, got 4294967296"),
    ("optimizer.learning_rate=fast", "optimizer.learning_rate must be a number, got 'fast'"),
    ("optimizer.learning_rate=nan", "optimizer.learning_rate must be a number, got nan"),
    ("optimizer.learning_rate=inf", "optimizer.learning_rate must be a number, got inf"),
    ("optimizer.momentum=0.9",
     "optimizer.momentum: the optimizer adam has no such field; it has learning_rate, schedule, "
     "clip_norm, weight_decay, decayed, beta1, beta2, epsilon"),
    ("data.augmentation.affine.rotate=1",
     "data.augmentation.affine.rotate: the augmentation affine has no such field; did you mean "
     "rotation? Its fields are rotation, zoom, shift, shear"),
    ("data.augmentation.3.rotation=1",
     "data.augmentation has no entry 3: the list has 0 entries, numbered from 0"),
    ("data.augmentation.affine=1",
     "data.augmentation.affine is an augmentation: set one of its fields (rotation, zoom, shift, "
     "shear), or select it with data.augmentation=affine"),
    ("data.augmentation.affine.rotation=200",
     "data.augmentation.affine.rotation must be at most 180, got 200.0"),
    ("optimizer.learningrate=1",
     "optimizer.learningrate: the optimizer adam has no such field; did you mean learning_rate? "
     "Its fields are learning_rate, schedule, clip_norm, weight_decay, decayed, beta1, beta2, "
     "epsilon"),
    ("train.deterministic=1", "train.deterministic must be true or false, got '1'"),
    ("train.deterministic=none", "train.deterministic must be true or false, got 'none'"),
    ("model.filters=16,a", "model.filters must be a list of numbers like 32,64 (int), got '16,a'"),
    ("model.filters=16,0", "model.filters must be at least 1, got 0"),
    ("model.filters=1.5", "model.filters must be a list of numbers like 32,64 (int), got '1.5'"),
    ("model.dropout=0.5,1", "model.dropout must be below 1, got 1.0"),
    *((f"{name}={text}", f"{name} must be a list of {example}, got {text!r}")
      for name, example in (("model.filters", "numbers like 32,64 (int)"),
                            ("model.dropout", "numbers like 32,64 (float)"),
                            ("train.freeze", "values like a,b (str)"))
      for text in ("[", "(", ")", ",", "[1", "1)", "(1]", "1,,2", "(,)", "'1", "1'", "'1\"", "''",
                   "[1,'2]")),
])
def test_wrong_types_and_ranges_name_the_field(assignment, message):
    assert refusal(assignment) == message


@pytest.mark.parametrize(("text", "value"), [
    ("", ()), ("()", ()), ("[ ]", ()), ("Conv_0", ("Conv_0",)), ("Conv_0,", ("Conv_0",)),
    ("('Conv_0',)", ("Conv_0",)), ('["Conv_0", "Dense_1"]', ("Conv_0", "Dense_1")),
    ("Conv_[01]", ("Conv_[01]",)), ("[CD]*,Conv_[01]", ("[CD]*", "Conv_[01]")),
])
def test_lists_are_parsed_as_python_prints_them(text, value):
    config = apply_overrides(base(), [f"train.freeze={text}"])
    assert config.train.freeze == value


@pytest.mark.parametrize(("name", "near"), [
    ("train.epoch", "train.epochs"),
    ("learning_rate", "optimizer.learning_rate"),
    ("evaluate.fold", "data.fold"),
    ("checkpoint.every_step", "checkpoint.every_steps"),
    ("sed", "seed"),
    ("of.some.group.that.is.none.keep", "checkpoint.keep"),  # only by its last part
    ("train.epochs.first", "train.epochs"),
])
def test_an_unknown_name_is_reported_with_similar_names(name, near):
    message = refusal(f"{name}=1")
    assert message.startswith(f"unknown field {name}; did you mean ")
    assert near in message


def test_a_name_without_similar_ones_refers_to_the_list():
    assert refusal("zzzzzzz=1") == "unknown field zzzzzzz; the mode config lists all fields"


@pytest.mark.parametrize("assignment", ["train.epochs", "", "train.epochs 5"])
def test_a_setting_without_equals_is_refused(assignment):
    assert refusal(assignment) == f"an override must be name=value, got {assignment!r}"


def test_a_group_of_fields_is_not_a_field():
    message = refusal("checkpoint=none")
    assert message.startswith("checkpoint is a group of fields; set one of ")
    assert message.endswith("checkpoint.every_steps, checkpoint.keep, checkpoint.select")
    assert "train is a group of fields" in refusal("train=5")


@pytest.mark.parametrize("name", ["", ".", "train.", ".epochs", "train..epochs"])
def test_odd_names_are_unknown(name):
    assert refusal(f"{name}=1").startswith(("unknown field", "train is a group"))


def test_repeated_settings_apply_in_order_and_leave_the_rest():
    config = apply_overrides(base(), ["train.epochs=5", "seed=1", "train.epochs=7"])
    assert config.train.epochs == 7 and config.seed == 1
    back = apply_overrides(config, ["train.epochs=1", "seed=0"])
    assert back == base()


def test_components_are_chosen_before_their_fields_are_set():
    config = apply_overrides(base(), [
        "optimizer.schedule.decay_rate=1e-5", "optimizer.momentum=0.9",
        "optimizer.schedule=inverse_time", "optimizer=sgd"])
    assert config.optimizer == SGD(schedule=InverseTime(decay_rate=1e-5), momentum=0.9)


def test_a_selected_component_keeps_the_fields_that_both_have():
    config = apply_overrides(base(), ["optimizer.learning_rate=0.1", "optimizer.epsilon=0.5",
                                      "optimizer.schedule.warmup_steps=5"])
    config = apply_overrides(config, ["optimizer.name=rmsprop", "optimizer.schedule=cosine"])
    assert config.optimizer == RMSprop(0.1, Cosine(warmup_steps=5), epsilon=0.5)
    assert apply_overrides(base(), ["optimizer=adamw"]).optimizer.weight_decay == 0.01
    mild = apply_overrides(base(), ["optimizer.weight_decay=0.5"])
    assert apply_overrides(mild, ["optimizer=adamw"]).optimizer.weight_decay == 0.5


def test_a_list_of_components_is_set_by_names_and_an_entry_by_its_own():
    config = apply_overrides(base(), ["data.augmentation=affine,cutout",
                                      "data.augmentation.cutout.size=0.5"])
    assert config.data.augmentation == (Affine(), Cutout(size=0.5))
    config = apply_overrides(config, ["data.augmentation=cutout, noise"])
    assert config.data.augmentation == (Cutout(size=0.5), Noise())
    config = apply_overrides(config, ["data.augmentation.elastic.strength=0.1",
                                      "data.augmentation.1.deviation=0.3"])
    assert config.data.augmentation == (Cutout(size=0.5), Noise(0.3), Elastic(strength=0.1))
    assert apply_overrides(config, ["data.augmentation=none"]).data.augmentation == ()
    twice = apply_overrides(base(), ["data.augmentation=noise,noise"])
    assert "the list has several entries with this name" in refusal(
        "data.augmentation.noise.deviation=1", config=twice)


@pytest.mark.parametrize(("assignments", "name", "expected"), [
    (["optimizer.warmup_steps=5"], "schedule", Constant(warmup_steps=5)),
    (["optimizer.decay_rate=0.5", "optimizer.schedule=inverse_time"], "schedule",
     InverseTime(decay_rate=0.5)),
    (["train.label_smoothing=0.2"], "loss", CrossEntropy(label_smoothing=0.2)),
    (["data.augmentation.rotation=0", "data.augmentation.zoom=0"], "augmentation", ()),
    (["data.augmentation.rotation=5", "data.augmentation.zoom=0.1"], "augmentation",
     (Affine(rotation=5.0, zoom=0.1),)),
])
def test_names_of_the_first_version_still_work(assignments, name, expected):
    config = apply_overrides(base(), assignments)
    assert {"schedule": config.optimizer.schedule, "loss": config.train.loss,
            "augmentation": config.data.augmentation}[name] == expected


def test_the_original_config_is_not_changed():
    config = base()
    apply_overrides(config, ["train.epochs=5", "model.filters=1,2"])
    assert config == base()


@dataclasses.dataclass(frozen=True)
class Depth:
    """A group of fields within a model's config."""

    layers: int = 2
    growth: float = 1.5


def test_fields_of_a_custom_model(monkeypatch):
    monkeypatch.setattr(Model, "registered", dict(Model.registered))

    @register("mine")
    @dataclasses.dataclass(frozen=True)
    class OwnModel(Model):
        activation: Literal["relu", "gelu"] = "relu"
        scale: float | None = None
        depth: Depth = Depth()
        filters: tuple[int, ...] = ()

    config = dataclasses.replace(base(), model=OwnModel())
    assert value_after("model.activation=gelu", config) == "gelu"
    assert value_after("model.scale=2", config) == 2.0
    assert value_after("model.depth.layers=4", config) == 4
    assert value_after("model.filters=3", config) == (3,)
    assert type(apply_overrides(config, ["seed=1"]).model) is OwnModel
    assert {"model.activation", "model.depth.growth"} <= set(field_names(config))
    assert refusal("model.activation=tanh", config=config) == (
        "model.activation must be one of relu, gelu, got 'tanh'")
    assert "model.depth.layer" in refusal("model.depth.layer=3", config=config)


@pytest.mark.parametrize(("assignment", "expected"), [
    ("train.loss.flag=none", None),
    ("train.loss.flag=True", True),
    ("train.loss.size=auto", "auto"),
    ("train.loss.size=3", 3),
    ("train.loss.size=none", None),
])
def test_every_member_of_a_union_type_can_be_set(assignment, expected, monkeypatch):
    monkeypatch.setattr(Loss, "registered", dict(Loss.registered))

    @register("mine")
    @dataclasses.dataclass(frozen=True)
    class OwnLoss(Loss):
        flag: bool | None = False
        size: Literal["auto", "all"] | int | None = 0

    config = apply_overrides(base(), ["train.loss=mine"])
    value = value_after(assignment, config)
    assert value == expected and type(value) is type(expected)
    assert refusal("train.loss.flag=abc", config=config) == (
        "train.loss.flag must be true or false or none, got 'abc'")
    assert refusal("train.loss.size=some", config=config) == (
        "train.loss.size must be one of auto, all or an integer or none, got 'some'")


def test_a_model_is_chosen_by_its_name():
    config = apply_overrides(base(), ["model=resnet", "model.width=8"])
    assert config.model == ResNetConfig(width=8)
    assert apply_overrides(config, ["model.name=lenet5"]).model == LeNet5Config()
    assert refusal("model.filters=8", config=config) == (
        "model.filters: the model resnet has no such field; it has depth, width, norm")
    assert "did you mean resnet" in refusal("model=resnett")


def test_another_model_keeps_the_fields_that_both_have():
    recipe = dataclasses.replace(base(), model=DenseCnnConfig(dense=(7,), batch_norm=True))
    changed = apply_overrides(recipe, ["model=mse_cnn"]).model
    assert changed == MseCnnConfig(dense=(7,), batch_norm=True), (
        "defaults in the one are defaults in the other")
    one_rate = dataclasses.replace(base(), model=DenseCnnConfig(dropout=(0.5,)))
    assert apply_overrides(one_rate, ["model=mlp"]).model == MlpConfig(), (
        "a list of rates and one rate are not the same field")
