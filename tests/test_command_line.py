"""The help, the refusal of unknown and unsuitable flags, and the annotated config."""

import dataclasses
import json
import re

import pytest

from flaxdigits import config
from flaxdigits.cli.options import ABLATION, FLAGS, MODES
from flaxdigits.components import Component, register
from flaxdigits.config import to_dict
from flaxdigits.experiments import load_experiment
from flaxdigits.field_types import field_meanings
from flaxdigits.optimizers import Optimizer
from flaxdigits.overrides import apply_overrides, field_names
from flaxdigits.reports.config import config_fields

pytest_plugins = ["tiny_run"]


def test_help_has_every_flag_once_and_every_mode_in_two_screens(launch_here):
    lines = launch_here("--help").stdout.splitlines()
    described = [re.match(r" +--(?:\[no\])?(\w+)", line)[1] for line in lines
                 if re.match(r" {2,4}--", line) and not line.startswith("  --mode=")]
    assert sorted([*described, "mode"]) == sorted(FLAGS)
    assert {line.split()[0] for line in lines if line.startswith("  --mode=")} == {
        "--mode=MODE", *(f"--mode={mode}" for mode in MODES)}
    assert max(map(len, lines)) <= 100 and len(lines) <= 80


@pytest.mark.parametrize("mode", [*MODES, ABLATION])
def test_help_of_a_mode_has_the_flags_that_it_takes(mode, launch_here):
    chosen = "--ablation=x" if mode == ABLATION else f"--mode={mode}"
    for arguments in (["--help", chosen], [chosen, "-h"]):
        lines = launch_here(*arguments).stdout.splitlines()
        assert {re.match(r"  --(?:\[no\])?(\w+)", line)[1] for line in lines
                if line.startswith("  --")} == {
            name for name, flag in FLAGS.items() if mode in flag.modes} - {"mode"}


NOT_TAKEN = [
    (["--mode=predict", "--data=real"], "--data is not for --mode=predict"),
    (["--mode=compare", "--set=seed=1"], "--set is not for --mode=compare"),
    (["--mode=summary", "--notensorboard"],
     "--tensorboard is only for --mode=train, folds or replicate, got --mode=summary"),
    (["--experiment=mse_cnn", "--format=json"], "--format is only for --mode=predict or config"),
    (["--ablation=mse_cnn", "--profile"], "--profile is only for --mode=train, got --ablation"),
]


@pytest.mark.parametrize(("arguments", "message"), NOT_TAKEN)
def test_a_flag_that_the_mode_does_not_take_is_refused(arguments, message, launch_here):
    done = launch_here(*arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {message}")


UNKNOWN = [
    (["--epochs=2"], "--epochs: use --set train.epochs=2"),
    (["--epochs", "2"], "--epochs: use --set train.epochs=2"),
    (["--epochs"], "--epochs: use --set train.epochs=VALUE"),
    (["--batch_size=64"],
     "--batch_size: use --set train.batch_size=64 or --set evaluate.batch_size=64"),
    (["--seed=3"], "--seed: use --set seed=3"),
    (["--momentum=0.9"], "--momentum: use --set optimizer.momentum=0.9"),
    (["--rotation=10"], "--rotation: use --set data.augmentation.affine.rotation=10"),
    (["--optimizer=sgd"], "--optimizer: use --set optimizer=sgd"),
    (["--data.fold=1"], "--data.fold: use --set data.fold=1"),
    (["--together=2"], "--together: use --set train.seeds_per_call=2"),
    (["--workdr=x"], "--workdr: did you mean --workdir?"),
    (["--zzz=1"], "--zzz: --help lists all flags"),
]


@pytest.mark.parametrize(("arguments", "message"), UNKNOWN)
def test_an_unknown_flag_is_answered_with_the_field_that_it_means(
    arguments, message, launch_here
):
    done = launch_here("--experiment=mse_cnn", *arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: unknown flag {message}")


SECTIONS = (config.ExperimentConfig, config.DataConfig, config.TrainConfig, config.EvaluateConfig,
            config.CheckpointConfig)


@pytest.mark.parametrize("cls", [
    *SECTIONS, *(cls for kind in Component.__subclasses__() for cls in kind.registered.values()
                 if cls.__module__.startswith("flaxdigits."))])
def test_every_field_of_the_config_has_a_meaning(cls):
    meanings = field_meanings(cls)
    assert [field.name for field in dataclasses.fields(cls) if not meanings.get(field.name)] == []


def test_a_meaning_is_read_from_the_class_or_its_bases():
    @dataclasses.dataclass(frozen=True)
    class Base:
        """Base.

        Attributes:
          first: of the base
            class.
          second (int): to be replaced.

        Returns:
          third: no field.
        """

    @dataclasses.dataclass(frozen=True)
    class Derived(Base):
        """Derived.

        Attributes:
          second: of its own.
        """

    assert field_meanings(Derived) == {"first": "of the base class.", "second": "of its own."}


def test_the_annotated_config_has_every_field_with_bounds_and_choices(launch_here):
    overrides = ["data.augmentation=affine,cutout", "optimizer=sgd", "train.ema_decay=0.99"]
    done = launch_here("--experiment=mse_cnn", "--mode=config", "--format=table",
                       *(f"--set={override}" for override in overrides))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    names = [name for name in field_names(
        apply_overrides(load_experiment("mse_cnn"), overrides)) if not name.endswith(".name")]
    components = {"model", "optimizer", "optimizer.schedule", "train.loss", "train.objective"}
    assert {line.split()[0] for line in lines if re.match(r"[a-z]\S+  ", line)} - {
        "field"} == {*names, *components}
    text = " ".join(" ".join(lines).split())
    assert "data.fold 0 The tested fold" in text
    assert "(number or none, above 0, below 1)" in text and "(one of last, best)" in text


def test_fields_have_the_value_that_set_takes():
    original = load_experiment("chinese_cnn")
    fields = {field.name: field for field in config_fields(original)}
    for name in ("model", "optimizer", "optimizer.schedule", "train.loss", "train.objective"):
        assert fields[name].value in fields[name].values
    assert apply_overrides(original, [
        f"{name}={field.value}" for name, field in fields.items()]) == original


def test_a_custom_component_is_shown_with_its_docstring(registries):
    @register("mine")
    @dataclasses.dataclass(frozen=True)
    class Mine(Optimizer):
        """Mine.

        Attributes:
          sharpness: how sharp it is.
        """

        sharpness: float = 0.5
        undocumented: int = 3

    fields = {field.name: field for field in config_fields(apply_overrides(
        load_experiment("mse_cnn"), ["optimizer=mine"]))}
    assert fields["optimizer.sharpness"].meaning == "How sharp it is"
    assert fields["optimizer.sharpness"].value == "0.5"
    assert fields["optimizer.undocumented"].meaning == ""
    assert "mine" in fields["optimizer"].values


def test_the_config_is_json_in_a_pipe_and_with_the_flag(launch_here):
    for flags in ([], ["--format=json"]):
        done = launch_here("--experiment=mse_cnn", "--mode=config", *flags)
        assert json.loads(done.stdout) == to_dict(load_experiment("mse_cnn"))
