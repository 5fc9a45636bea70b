"""The built-in recipes against the published ones."""

import ast

import pytest

from flaxdigits.augmentations import Affine
from flaxdigits.experiments import BUILT_IN, list_experiments, load_experiment
from flaxdigits.schedules import Constant, InverseTime

# What the source documents and their code give, or where they do not, what Keras's defaults were.
RECIPES = {
    "chinese_cnn": {
        "model.name": "chinese_cnn", "model.filters": (32, 64, 128),
        "model.dense": (1024, 512, 256), "model.dropout": (),
        "data.dataset": "chinese_mnist", "data.split": "random", "data.preprocessing": "unit",
        "train.loss.name": "cross_entropy", "train.batch_size": 32, "train.epochs": 3,
        "optimizer.name": "adam", "optimizer.learning_rate": 1e-3, "optimizer.epsilon": 1e-7,
        "optimizer.beta1": 0.9, "optimizer.beta2": 0.999,
    },
    "mnist_cnn": {
        "model.name": "mnist_cnn", "model.filters": (32, 64, 128, 256), "model.dense": (128,),
        "model.dropout": (0.25, 0.25, 0.5),
        "data.dataset": "mnist", "data.split": "official", "data.preprocessing": "unit",
        "train.loss.name": "cross_entropy", "train.batch_size": 128, "train.epochs": 12,
        "optimizer.name": "adadelta", "optimizer.learning_rate": 1.0, "optimizer.rho": 0.95,
        "optimizer.epsilon": 1e-7,
    },
    "mse_cnn": {
        "model.name": "mse_cnn", "model.filters": (32, 32), "model.dense": (),
        "model.dropout": (0.3,),
        "data.dataset": "mnist", "data.split": "official", "data.preprocessing": "unit",
        "train.loss.name": "mse", "train.batch_size": 32, "train.epochs": 20,
        "optimizer.name": "sgd", "optimizer.learning_rate": 0.01, "optimizer.momentum": 0.0,
    },
    "kaggle_cnn": {
        "model.name": "kaggle_cnn", "model.filters": (32, 32, 64, 64),
        "model.dense": (8192, 2048), "model.dropout": (0.5, 0.5, 0.5, 0.5),
        "data.dataset": "mnist", "data.split": "kaggle", "data.preprocessing": "unit",
        "data.augmentation": (Affine(rotation=1, zoom=0.1, shift=0.05),),
        "train.loss.name": "cross_entropy", "train.batch_size": 512, "train.epochs": 100,
        "optimizer.name": "rmsprop", "optimizer.learning_rate": 1e-4, "optimizer.rho": 0.9,
        "optimizer.epsilon": 1e-8, "optimizer.momentum": 0.0,
        "optimizer.schedule": InverseTime(decay_rate=1e-5),
    },
    "dense_cnn": {
        "model.name": "dense_cnn", "model.filters": (32,), "model.dense": (256, 256),
        "model.dropout": (0.1,),
        "data.dataset": "mnist", "data.split": "official", "data.preprocessing": "column_norm",
        "train.loss.name": "cross_entropy", "train.batch_size": 32, "train.epochs": 10,
        "optimizer.name": "adam", "optimizer.learning_rate": 1e-3, "optimizer.epsilon": 1e-7,
        "optimizer.beta1": 0.9, "optimizer.beta2": 0.999,
    },
}

# What no original had; a recipe that does not name them in RECIPES must leave them off.
PLAIN = {
    "model.batch_norm": False, "data.augmentation": (), "data.limit": None,
    "data.fold": 0, "data.folder": None, "optimizer.schedule": Constant(),
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": None, "train.steps": None, "train.stop_after": None,
    "train.ema_decay": None, "train.init_from": None,
    "train.parallel": "jit", "checkpoint.keep": 3, "checkpoint.select": "last", "seed": 0,
}


def value_at(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


def test_the_five_are_included():
    assert set(RECIPES) <= set(list_experiments())


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_published_ones(name):
    config = load_experiment(name)
    assert config.experiment == name
    expected = PLAIN | RECIPES[name]
    assert {field: value_at(config, field) for field in expected} == expected


@pytest.mark.parametrize("name", list_experiments())
def test_docstrings_contain_the_command(name):
    text = ast.get_docstring(ast.parse((BUILT_IN / f"{name}.py").read_text()))
    assert f"python launch.py --experiment={name}" in text


@pytest.mark.parametrize("name", list_experiments())
def test_titles_fit_a_line(name):
    title = list_experiments()[name]
    assert title and len(f"{name:18} {title}") <= 120
