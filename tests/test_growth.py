"""--mode=growth: the sizes, the powers by which cost grows, and the command."""

import json

import pytest
from conftest import ROOT

from flaxdigits.benchmark.growth import SHIPPED, Size, exponents, sizes
from flaxdigits.experiments import list_experiments, load_experiment
from flaxdigits.overrides import apply_overrides

pytest_plugins = ["tiny_run"]
SMALL = ("--set", "model.filters=2", "--set", "model.dense=4,4", "--set", "train.batch_size=8")


@pytest.mark.parametrize("name", list_experiments())
def test_sizes_change_what_they_say(name):
    config = load_experiment(name)
    found = sizes(config, 12_001)
    assert next(iter(found)) == SHIPPED and found[SHIPPED] == Size(None)
    configs = {told: apply_overrides(config, size.overrides) for told, size in found.items()}
    assert configs["1/4 of the examples"].data.limit == 3_001
    assert configs["twice the batch"].train.batch_size == 2 * config.train.batch_size
    wide = configs["twice as wide"].model
    assert wide.filters == tuple(2 * width for width in config.model.filters)
    assert wide.dense == tuple(2 * width for width in config.model.dense)
    assert len(set(map(repr, configs.values()))) == len(configs) == 7


def test_powers_are_slopes_of_what_grows_alone():
    found = {SHIPPED: Size(None), "fewer": Size("examples"), "less": Size("batch"),
             "wider": Size("parameters")}
    shipped = {"examples": 100, "epoch_seconds": 3.0, "batch_size": 8, "parameters": 50,
               "milliseconds": 2.0}
    measured = {
        SHIPPED: shipped, "fewer": shipped | {"examples": 50, "epoch_seconds": 1.5},
        "less": shipped | {"batch_size": 4, "milliseconds": 2.0},
        "wider": shipped | {"parameters": 100, "milliseconds": 8.0}}
    assert exponents(measured, found) == pytest.approx(
        {"examples": 1, "batch": 0, "parameters": 2})


def test_it_needs_an_experiment(launch_here, finished):
    done = launch_here("--mode=growth", f"--workdir={finished}")
    assert done.returncode == 2 and done.stdout == ""
    assert "--mode=growth needs --experiment" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_every_size_is_timed_and_told(launch, idx_folder, tmp_path):
    done = launch("--mode=growth", "--experiment=dense_cnn", f"--workdir={tmp_path}",
                  "--set", "data.dataset=idx_files", "--set", f"data.folder={idx_folder}",
                  "--set", "data.split=holdout", *SMALL, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "growth.json").read_text())
    found = told["sizes"]
    assert found[SHIPPED]["examples"] == 183 and found["1/4 of the examples"]["examples"] == 46
    assert found["twice as wide"]["parameters"] > found[SHIPPED]["parameters"]
    for size in found.values():
        assert size["epoch_seconds"] == pytest.approx(
            -(-size["examples"] // size["batch_size"]) * size["milliseconds"] / 1000)
        assert 50e6 < size["peak_bytes"] < size["memory_bound"]
    assert all(name in done.stdout for name in (*found, "dense_cnn grows with examples to the"))
