"""Names of earlier versions are still accepted: fields, flags, JSON keys and functions."""

import dataclasses
import json

import pytest
from absl.testing import flagsaver
from rich.console import Console

import flaxdigits
from flaxdigits.api.session import Session
from flaxdigits.cli.options import parse
from flaxdigits.config import CheckpointConfig, TrainConfig, from_dict, to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.overrides import apply_overrides
from flaxdigits.studies.records import read_record
from flaxdigits.studies.replication import Claim
from flaxdigits.studies.study import Study
from flaxdigits.training.identity import run_identity
from flaxdigits.training.run_folder import RunFolder

pytestmark = pytest.mark.quick

OLD = ["data.split=holdout", "train.together=4", "checkpoint.report=best"]
NEW = ["data.split=holdout", "train.seeds_per_call=4", "checkpoint.select=best"]


def test_overrides_accept_old_fields():
    config = flaxdigits.experiment("mse_cnn")
    assert apply_overrides(config, OLD) == apply_overrides(config, NEW)


def test_a_config_file_with_old_fields_is_read():
    config = apply_overrides(flaxdigits.experiment("mse_cnn"), NEW)
    values = to_dict(config)
    values["train"]["together"] = values["train"].pop("seeds_per_call")
    values["checkpoint"]["report"] = values["checkpoint"].pop("select")
    assert from_dict(values) == config


def test_the_identity_of_a_run_does_not_depend_on_fields_that_may_change():
    data = {"fingerprint": "0"}
    identities = {
        run_identity({"config": {"train": {name: 4, "epochs": 1}}, "data": data})
        for name in ("together", "seeds_per_call", "stop_after")}
    assert len(identities) == 1


def test_classes_accept_old_fields():
    assert TrainConfig(together=3) == TrainConfig(seeds_per_call=3)
    assert CheckpointConfig(report="best") == CheckpointConfig(select="best")
    assert Study("mse_cnn", figure="test_loss", also=("test_errors",)) == Study(
        "mse_cnn", metric="test_loss", extra_metrics=("test_errors",))
    assert Claim(figure="test_accuracy", accuracy=0.9, why="", beside=("train_accuracy",)) == Claim(
        "test_accuracy", 0.9, "", extra_metrics=("train_accuracy",))


def test_replacing_an_old_field_names_the_new_one():
    with pytest.raises(FlaxdigitsError, match="the field together is now called seeds_per_call"):
        dataclasses.replace(TrainConfig(), together=3)


def test_old_flags_are_accepted():
    with flagsaver.flagsaver():
        options = parse(["launch.py", "--experiment=mse_cnn", "--data=drawn", "--logs=own"])
    assert (options.data, options.logs) == ("synthetic", "flaxdigits")
    drawn, synthetic = (Session(Console(), name) for name in ("drawn", "synthetic"))
    assert drawn.locations == synthetic.locations


def test_the_old_key_of_a_diverged_run_is_read(tmp_path):
    (tmp_path / "diverged.json").write_text('{"step": 3, "told": "not finite"}')
    assert RunFolder(tmp_path).diverged() == {"step": 3, "message": "not finite"}
    record = tmp_path / "original-seed0.json"
    record.write_text(json.dumps({
        "config": {"experiment": "mse_cnn", "data": {}, "optimizer": {}, "train": {}},
        "data": {"dataset": "mnist", "source": "real", "fingerprint": "0"},
        "diverged": {"step": 3, "told": "not finite"}}))
    assert read_record(record).result is None


def test_old_names_of_the_package_are_available():
    assert flaxdigits.data_sheet is flaxdigits.preview_data
    assert flaxdigits.Readings is flaxdigits.ImagePredictions
