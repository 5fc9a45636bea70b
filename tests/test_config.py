"""Every field's type and range, the combinations, and the way through JSON."""

import dataclasses
import json
import subprocess
import sys

import pytest

from flaxdigits.augmentations import Affine, Cutout
from flaxdigits.components import register
from flaxdigits.config import (
    CheckpointConfig,
    DataConfig,
    EvaluateConfig,
    ExperimentConfig,
    ModelConfig,
    TrainConfig,
    complete,
    from_dict,
    to_dict,
    validate,
)
from flaxdigits.datasets import DATASETS, find_dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.losses import CrossEntropy, MeanSquaredError
from flaxdigits.metrics import MacroF1, TopK
from flaxdigits.models import ChineseCnnConfig, DenseCnnConfig, MlpConfig, Model
from flaxdigits.objectives import FastAdversarial, Mixup
from flaxdigits.optimizers import SGD, Adam, Optimizer, RMSprop
from flaxdigits.overrides import field_names
from flaxdigits.schedules import Cosine, InverseTime, OneCycle, Piecewise

pytestmark = pytest.mark.quick

INF, NAN = float("inf"), float("nan")

# Field by field: values just outside its bounds and of other types, then values at its bounds.
FIELDS = {
    "experiment": ([None, 3], ["a"]),
    "model.filters": ([(0,), (32, 0), (32, -1), (1.5,), ("8",), (True,), 32, None], [(), (1, 2)]),
    "model.dense": ([(0,), (-1,), (2.5,), 256, None], [(), (1,)]),
    "model.dropout": ([(-0.01,), (1,), (0.5, 1.0), (NAN,), ("0.5",), 0.5, None],
                      [(), (0,), (0.99,)]),
    "model.batch_norm": ([1, 0, "true", None], [True, False]),
    "data.dataset": ([None, 1], ["mnist"]),
    "data.split": (["test", None, 1], ["official", "holdout", "kaggle"]),
    "data.fold": ([-1, 1000, 1.0, "1", True, None], [0]),
    "data.folds": ([2, 1001, 10.0, None], [10]),
    "data.split_seed": ([-1, 0.5, None], [0, 7]),
    "data.stratify": ([1, "true", None], [False]),
    "data.validation_fraction": ([-0.1, 1, "0.1", None], [0.1]),
    "data.test_fraction": ([-0.1, 1, NAN, None], [0.1]),
    "data.indices": ([3, ("a",)], [None]),
    "data.folder": ([3, ("a",)], [None]),
    "data.image_size": ([3, 0, 28.0, "28"], [None]),
    "data.limit": ([0, -1, 1.0], [None, 1]),
    "data.preprocessing": (["zscore", None], ["unit", "column_norm", "raw"]),
    "data.augmentation": ([None, 3], [(), (Affine(),)]),
    "optimizer.learning_rate": ([0, -1e-3, INF, NAN, "1e-3", True, None], [1e-9, 1]),
    "optimizer.schedule.warmup_steps": ([-1, 1.0, None], [0, 1]),
    "optimizer.beta1": ([-0.1, 1, None], [0, 0.99]),
    "optimizer.beta2": ([-0.1, 1, None], [0, 0.9999]),
    "optimizer.epsilon": ([0, -1e-8, None], [1e-12]),
    "optimizer.weight_decay": ([-1e-9, None], [0, 0.1]),
    "optimizer.decayed": (["biases", None], ["kernels", "all"]),
    "optimizer.clip_norm": ([0, -1, "1"], [None, 0.1]),
    "train.batch_size": ([0, -1, 32.0, None], [1]),
    "train.epochs": ([0, -1, 1.5, None], [1]),
    "train.steps": ([0, -1, 1.5], [None, 1]),
    "train.stop_after": ([0, -1, 1.5], [None, 1]),
    "train.loss.label_smoothing": ([-0.1, 1, None], [0, 0.99]),
    "train.loss.class_weights": ([(-1.0,), (NAN,), 1.0, None], [(), (0.0, 2.0)]),
    "train.l2_penalty": ([-1e-9, INF, None], [0, 1e-4]),
    "train.ema_decay": ([0, 1, -0.5], [None, 0.999]),
    "train.init_from": ([3], [None, "runs/a"]),
    "train.freeze": ([None, "Conv_0", (1,)], [(), ("Conv_*", "Dense_0")]),
    "train.log_every": ([0, -1, 1.0, None], [1]),
    "train.log_norms": ([1, "true", None], [True, False]),
    "train.parallel": (["pjit", None], ["jit", "pmap"]),
    "train.deterministic": ([1, "true", None], [True, False]),
    "train.seeds_per_call": ([0, -1, 1.0, True], [None, 1]),
    "train.precision": (["fp16", None, 32], ["fp32", "tf32", "bf16"]),
    "evaluate.batch_size": ([0, -1, 1.0], [None, 1]),
    "evaluate.every_steps": ([0, -1, 1.0], [None, 1]),
    "evaluate.preprocessing": (["zscore", 1], [None, "unit", "column_norm", "raw"]),
    "evaluate.metrics": ([None, "macro_f1"], [(), (MacroF1(), TopK(k=2))]),
    "checkpoint.every_steps": ([0, -1, 1.0], [None, 1]),
    "checkpoint.keep": ([0, -1, 1.0], [None, 1]),
    "checkpoint.select": (["first", None], ["last"]),
    "seed": ([-1, 2**32, 0.5, "0", True, None], [0, 2**32 - 1]),
}

REFUSED = [(name, value) for name, (refused, _) in FIELDS.items() for value in refused]
ACCEPTED = [(name, value) for name, (_, accepted) in FIELDS.items() for value in accepted]


def base() -> ExperimentConfig:
    return ExperimentConfig("a", DenseCnnConfig((8,), (), ()))


def with_field(config, name, value):
    """The config with one field changed and nothing checked."""
    first, _, rest = name.partition(".")
    inner = with_field(getattr(config, first), rest, value) if rest else value
    return dataclasses.replace(config, **{first: inner})


def with_entry(values, name, value):
    first, _, rest = name.partition(".")
    return values | {first: with_entry(values[first], rest, value) if rest else value}


def refusal(function, *arguments) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_table_above_has_every_field():
    choices = {"optimizer.name", "optimizer.schedule.name", "train.loss.name",
               "train.objective.name", "model.name"}
    assert sorted({*FIELDS, *choices}) == sorted(field_names(base()))


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_wrong_types_and_ranges_are_refused_by_name(name, value):
    config = with_field(base(), name, value)
    assert refusal(validate, config).startswith(f"{name} must be ")
    message = refusal(from_dict, to_dict(config)).removeprefix("config: ")
    assert message.startswith(f"{name} must be ")


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_values_at_the_bounds_are_accepted(name, value):
    config = with_field(base(), name, value)
    assert validate(config) == config
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize("name", [
    "train.steps", "train.log_every", "train.batch_size", "optimizer.schedule.warmup_steps",
    "evaluate.every_steps", "checkpoint.every_steps"])
def test_counts_that_int32_does_not_hold_are_refused(name):
    assert refusal(validate, with_field(base(), name, 2**31)).startswith(f"{name} must be ")


@pytest.mark.parametrize("name", [
    "optimizer.learning_rate", "optimizer.clip_norm", "optimizer.epsilon", "train.l2_penalty"])
def test_floats_that_float32_would_flush_to_zero_are_refused(name):
    assert "must be 0 or at least 1.17" in refusal(validate, with_field(base(), name, 1e-300))
    assert validate(with_field(base(), name, 2.0**-126))


def test_integers_that_do_not_fit_into_64_bits_are_refused(monkeypatch):
    monkeypatch.setattr(Optimizer, "registered", dict(Optimizer.registered))

    @register("big")
    @dataclasses.dataclass(frozen=True)
    class Big(Optimizer):
        number: int = 0

    assert validate(with_field(base(), "optimizer", Big(number=2**63 - 1)))
    message = refusal(validate, with_field(base(), "optimizer", Big(number=-2**63)))
    assert message.startswith("optimizer.number must be a 64-bit integer, got ")


def test_a_split_seed_that_philox_does_not_take_is_refused():
    assert "data.split_seed" in refusal(validate, with_field(base(), "data.split_seed", 2**128))


@pytest.mark.parametrize("dataset", [*DATASETS, "tfds:emnist/letters:3.1.0"])
def test_a_data_set_accepts_only_its_own_splits(dataset):
    entry = find_dataset(dataset)
    folder = "somewhere" if "folder" in entry.required else None
    for split in ("official", "holdout", "kaggle", "random", "fractions", "kfold", "writers",
                  "indices"):
        indices = "split.json" if split == "indices" else None
        config = with_field(
            base(), "data", DataConfig(dataset, split, indices=indices, folder=folder))
        if split in entry.splits:
            assert validate(config) == config
        else:
            assert f"data.split={split}: {dataset} has no such split" in refusal(validate, config)


def test_messages_contain_the_bound_and_the_value():
    assert refusal(validate, with_field(base(), "data.fold", 10)) == (
        "data.fold must be at most 9, got 10")
    assert refusal(validate, with_field(base(), "model.dropout", (1.5,))) == (
        "model.dropout must be below 1, got 1.5")
    assert refusal(validate, with_field(base(), "train.parallel", "pjit")) == (
        "train.parallel must be one of jit, pmap, got 'pjit'")


def everything_changed() -> ExperimentConfig:
    return ExperimentConfig(
        "b", ChineseCnnConfig((1, 2), (3, 4), (0.5, 0.25), True),
        DataConfig(
            "image_folder", "kfold", 4, 5, 4, True, 0.2, 0.3, "split.json", "数字", 32, 5,
            "raw", (Affine(1.5, 0.1, 0.2), Cutout(0.5))),
        Adam(0.5, Piecewise(7, (0.25,), (0.5,)), 1.0, 0.01, "all", 0.8, 0.99, 1e-8),
        TrainConfig(64, 2, 100, 50, CrossEntropy(0.1, (1.0, 2.0)), Mixup(0.3), 1e-4, 0.999,
                    "runs/a", ("Conv_*",), 10, True, "pmap", 4, "tf32", True),
        EvaluateConfig(100, 5, "unit", (TopK(2), MacroF1())),
        CheckpointConfig(6, None, "best"), 2**32 - 1)


def test_json_round_trip_preserves_every_field():
    config = everything_changed()
    others = set(field_names(base())) - {"optimizer.name", "train.loss.name"}
    same = [name for name in others if value_at(config, name) == value_at(base(), name)]
    assert not same, "this test must change every field that goes with the others"
    text = json.dumps(to_dict(config), ensure_ascii=False)
    read = from_dict(json.loads(text))
    assert read == config
    assert isinstance(read.model.filters, tuple)
    assert json.dumps(to_dict(read), ensure_ascii=False) == text


def value_at(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


def test_integers_become_floats_in_float_fields():
    rate = from_dict(with_entry(to_dict(base()), "optimizer.learning_rate", 1))
    assert isinstance(rate.optimizer.learning_rate, float)
    rates = from_dict(with_entry(to_dict(base()), "model.dropout", [0, 0.5]))
    assert rates.model.dropout == (0.0, 0.5)
    assert [type(rate) for rate in rates.model.dropout] == [float, float]


def test_lists_become_tuples():
    made = validate(ExperimentConfig("a", DenseCnnConfig([8, 8])))
    assert made.model.filters == (8, 8) and hash(made)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", " a"])
def test_an_experiment_is_named_as_its_folder_can_be(name):
    with pytest.raises(FlaxdigitsError, match="experiment must be a name"):
        validate(ExperimentConfig(name, DenseCnnConfig()))


def test_missing_fields_take_their_defaults():
    assert from_dict({"experiment": "a", "model": {"name": "dense_cnn"}}) == ExperimentConfig(
        "a", DenseCnnConfig())


@pytest.mark.parametrize(("values", "message"), [
    ({"experiment": "a", "model": {"name": "dense_cnn"}, "epochs": 3}, "unknown field epochs"),
    ({"experiment": "a", "model": {"name": "mlp", "layers": 3}}, "unknown field model.layers"),
    ({"experiment": "a", "model": {"name": "dense_cnn"}, "data": {"augmentation": {"flip": 1}}},
     "unknown field data.augmentation.0.flip"),
    ({"experiment": "a", "model": {"name": "dense_cnn"}, "data": {"augmentation": 3}},
     "data.augmentation must be a list"),
    ({"experiment": "a", "model": {"name": "dense_cnn"},
      "optimizer": {"name": [], "schedule": "cosine"}},
     "optimizer.name must be one of"),
    ({"experiment": "a", "model": {"name": "dense_cnn"}, "optimizer": "adam"},
     "optimizer must be an object with a field \"name\", got 'adam'"),
    ({"experiment": "a", "model": {"name": "dense_cnn"}, "optimizer": {"learning_rate": 1}},
     "optimizer.name must be one of"),
    ({"experiment": "a", "model": {"name": "dense_cnn"}, "optimizer": {"name": ["adam"]}},
     "optimizer.name must be one of"),
    ({"experiment": "a", "model": {"name": "dense_cnn"}, "optimizer": {"name": "adam", "rho": 1}},
     "unknown field optimizer.rho"),
    ({"experiment": "a", "model": "x"}, "model must be an object with a field \"name\", got 'x'"),
    ({"experiment": "a", "model": {"name": "dense_cnn"}, "train": None}, "train must be an object"),
    ([], "must be an object"),
    ({"experiment": "a", "model": {}}, "model.name must be one of"),
    ({"model": {"name": "dense_cnn"}}, "config: missing required field experiment"),
    ({"experiment": "a"}, "config: missing required field model"),
    ({"experiment": "a", "model": {"name": "dense_cnn"}, "evaluate": {"metrics": 3}},
     "config: evaluate.metrics must be a list of components, got 3"),
    ({"experiment": "a", "model": {"name": "dense_cnn"}, 
      "optimizer": {"name": "adam", "learning_rate": 10**400}},
     "optimizer.learning_rate must be"),
])
def test_invalid_json_is_rejected_in_one_line(values, message):
    assert message in refusal(from_dict, values)


def test_custom_model_configs_are_read_and_checked_like_the_built_in_ones(monkeypatch):
    monkeypatch.setattr(Model, "registered", dict(Model.registered))

    @register("wide")
    @dataclasses.dataclass(frozen=True)
    class Wide(Model):
        width: float = 1.0
        depth: int | None = None

    config = dataclasses.replace(base(), model=Wide(width=2.0, depth=3))
    assert to_dict(config)["model"] == {"name": "wide", "width": 2.0, "depth": 3}
    assert from_dict(to_dict(config)) == config
    bad = with_field(config, "model.depth", 1.5)
    assert refusal(validate, bad) == "model.depth must be an integer or none, got 1.5"
    assert "model.depth" in refusal(from_dict, to_dict(bad))


def test_models_of_earlier_versions_are_read(monkeypatch):
    monkeypatch.setattr(Model, "registered", dict(Model.registered))

    @register("wide")
    @dataclasses.dataclass(frozen=True)
    class Wide(Model):
        width: float = 1.0

    earlier = {"name": "wide", "filters": [], "dense": [], "dropout": [], "batch_norm": False,
               "width": 2.0}
    values = to_dict(base()) | {"model": earlier}
    assert from_dict(values).model == Wide(2.0)
    assert complete(values)["model"] == {"name": "wide", "width": 2.0}
    assert "unknown field model.filters" in refusal(
        from_dict, values | {"model": earlier | {"filters": [8]}})
    unknown = {"name": "elsewhere", "filters": []}
    assert complete(values | {"model": unknown})["model"] == unknown


def test_the_constructor_of_earlier_versions_gives_the_same_models():
    assert ModelConfig("dense_cnn", filters=(8,)) == DenseCnnConfig((8,), (), (), False)
    assert ModelConfig("mlp") == MlpConfig()
    assert "the model mlp has no such field; it has dense, dropout" in refusal(
        lambda: ModelConfig("mlp", filters=(8,)))
    assert "must be one of" in refusal(lambda: ModelConfig("no_such"))

    def subclass():
        class Own(ModelConfig):
            pass

    assert "cannot be a base class" in refusal(subclass)


@pytest.mark.parametrize(("changes", "message"), [
    ({"optimizer.schedule": Cosine(warmup_steps=10), "train.steps": 10},
     "optimizer.schedule.warmup_steps must be below train.steps=10"),
    ({"optimizer.schedule": Piecewise(factors=(0.1,))}, "optimizer.schedule.factors"),
    ({"optimizer.schedule": Piecewise(boundaries=(0.5, 0.5))},
     "boundaries must be in strictly ascending order"),
    ({"train.objective": FastAdversarial(), "data.preprocessing": "raw"},
     "train.objective=fast_adversarial needs data.preprocessing=unit"),
    ({"evaluate.metrics": (TopK(), TopK())}, "two metrics have the key top_3"),
    ({"optimizer": "adam"}, "optimizer must be an optimizer"),
    ({"optimizer": SGD}, "optimizer must be an optimizer"),
    ({"train.loss": SGD()}, "train.loss must be a loss"),
    ({"data.augmentation": (SGD(),)}, "data.augmentation.0 must be an augmentation"),
    ({"checkpoint.select": "best"}, "checkpoint.select=best needs a validation split"),
    ({"data.dataset": "idx_files"}, "data.folder"),
    ({"data.dataset": "image_folder", "data.folder": ""}, "data.folder"),
    ({"data.folder": "images"}, "data.folder"),
    ({"data.image_size": 64}, "data.image_size=64 needs data.dataset=image_folder"),
    ({"data.image_size": 64, "data.dataset": "idx_files", "data.folder": "digits"},
     "data.image_size"),
])
def test_incompatible_fields_are_rejected(changes, message):
    config = base()
    for name, value in changes.items():
        config = with_field(config, name, value)
    assert message in refusal(validate, config)


@pytest.mark.parametrize("changes", [
    {"optimizer.schedule": Cosine(warmup_steps=10)},
    {"optimizer": SGD(0.1, InverseTime(decay_rate=0.1), momentum=0.9)},
    {"optimizer": RMSprop(schedule=OneCycle(rise=0.4))},
    {"train.loss": MeanSquaredError()},
    {"checkpoint.select": "best", "data.split": "holdout"},
    {"data.dataset": "idx_files", "data.folder": "digits"},
    {"data.dataset": "image_folder", "data.folder": "digits", "data.image_size": 64},
])
def test_compatible_fields_are_accepted(changes):
    config = base()
    for name, value in changes.items():
        config = with_field(config, name, value)
    assert validate(config) == config


# A config as the first version wrote it: one flat group of fields for all optimizers.
FIRST_VERSION = {
    "experiment": "a", "model": {"name": "dense_cnn", "filters": [8]},
    "data": {"augmentation": {"rotation": 0.0, "zoom": 0.0, "shift": 0.0}},
    "optimizer": {
        "name": "adam", "learning_rate": 0.01, "schedule": "constant", "warmup_steps": 0,
        "decay_rate": 0.0, "momentum": 0.0, "beta1": 0.9, "beta2": 0.999, "rho": 0.9,
        "epsilon": 1e-7, "weight_decay": 0.0, "clip_norm": None},
    "train": {"loss": "cross_entropy", "label_smoothing": 0.1, "epochs": 3}}


@pytest.mark.parametrize(("changes", "name", "expected"), [
    ({}, "optimizer", Adam(0.01)),
    ({}, "train.loss", CrossEntropy(label_smoothing=0.1)),
    ({}, "data.augmentation", ()),
    ({"optimizer.name": "rmsprop", "optimizer.rho": 0.8, "optimizer.schedule": "inverse_time",
      "optimizer.decay_rate": 1e-5}, "optimizer",
     RMSprop(0.01, InverseTime(decay_rate=1e-5), rho=0.8)),
    ({"optimizer.schedule": "onecycle"}, "optimizer", Adam(0.01, OneCycle())),
    ({"train.loss": "mse", "train.label_smoothing": 0.0}, "train.loss", MeanSquaredError()),
    ({"data.augmentation.zoom": 0.1}, "data.augmentation", (Affine(zoom=0.1),)),
])
def test_configs_of_the_first_version_are_read(changes, name, expected):
    values = FIRST_VERSION
    for field, value in changes.items():
        values = with_entry(values, field, value)
    assert value_at(from_dict(values), name) == expected


def test_the_class_name_of_the_first_version_names_its_replacement():
    with pytest.raises(FlaxdigitsError, match=r"flaxdigits\.optimizers"):
        from flaxdigits.config import OptimizerConfig  # noqa: F401


def test_the_config_is_frozen_and_does_not_import_jax():
    with pytest.raises(dataclasses.FrozenInstanceError):
        base().seed = 3
    subprocess.run(
        [sys.executable, "-c",
         "import flaxdigits.overrides, flaxdigits.experiments, sys; assert 'jax' not in "
         "sys.modules"], check=True)
