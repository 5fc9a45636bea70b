"""`--mode=growth`: the sizes, the exponents and the command."""

import json

import pytest

from flaxdigits.benchmark.growth import BASE, ROUNDS, Size, exponents, sizes
from flaxdigits.experiments import list_experiments, load_experiment
from flaxdigits.overrides import apply_overrides

pytest_plugins = ["tiny_run"]
SMALL = ("--set", "model.filters=2", "--set", "model.dense=4,4", "--set", "train.batch_size=8")


@pytest.mark.parametrize("name", list_experiments())
def test_sizes_differ_in_one_variable(name):
    config = load_experiment(name)
    found = sizes(config, 12_001)
    assert next(iter(found)) == BASE and found[BASE] == Size(None)
    configs = {label: apply_overrides(config, size.overrides) for label, size in found.items()}
    assert configs["1/4 of the examples"].data.limit == 3_001
    assert configs["1/2 of the examples"].data.limit == 6_001
    for label, factor in (("half", 0.5), ("twice", 2)):
        assert configs[f"{label} the batch"].train.batch_size == factor * config.train.batch_size
        wide = configs[f"{label} as wide"].model
        assert wide.filters == tuple(factor * width for width in config.model.filters)
        assert wide.dense == tuple(factor * width for width in config.model.dense)
    assert len(configs) == 7


@pytest.mark.parametrize(("overrides", "missing"), [
    (["train.batch_size=1"], {"half the batch"}),
    (["data.limit=1"], {"1/4 of the examples", "1/2 of the examples"}),
    (["model.filters=", "model.dense="], {"half as wide", "twice as wide"})])
def test_sizes_that_do_not_differ_are_omitted(overrides, missing):
    config = apply_overrides(load_experiment("dense_cnn"), overrides)
    complete = set(sizes(load_experiment("dense_cnn"), 100))
    assert complete - set(sizes(config, config.data.limit or 100)) == missing


def test_exponents_use_only_the_sizes_of_their_variable():
    found = {BASE: Size(None), "fewer": Size("examples"), "less": Size("batch"),
             "wider": Size("parameters")}
    base = {"examples": 100, "epoch_seconds": 3.0, "batch_size": 8, "parameters": 50,
            "milliseconds": 2.0}
    measured = {
        BASE: base, "fewer": base | {"examples": 50, "epoch_seconds": 1.5},
        "less": base | {"batch_size": 4, "milliseconds": 2.0},
        "wider": base | {"parameters": 100, "milliseconds": 8.0}}
    assert exponents(measured, found) == pytest.approx(
        {"examples": 1, "batch": 0, "parameters": 2})
    del found["wider"]
    assert set(exponents(measured, found)) == {"examples", "batch"}


@pytest.mark.parametrize("workdir", [None, "empty", "finished"])
def test_it_needs_an_experiment(workdir, launch_here, finished, tmp_path):
    folder = {None: [], "empty": [f"--workdir={tmp_path}"], "finished": [f"--workdir={finished}"]}
    done = launch_here("--mode=growth", *folder[workdir])
    assert done.returncode == 2 and done.stdout == ""
    assert "--mode=growth needs --experiment" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("mode", ["growth", "benchmark"])
def test_an_unwritable_folder_is_an_error(mode, launch_here, idx_folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = launch_here(f"--mode={mode}", "--experiment=dense_cnn", f"--workdir={tmp_path / 'file'}",
                       "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert str(tmp_path / "file") in done.stderr


@pytest.mark.slow
def test_every_size_is_timed_and_printed(launch, idx_folder, tmp_path):
    done = launch("--mode=growth", "--experiment=dense_cnn", f"--workdir={tmp_path}",
                  "--set", "data.dataset=idx_files", "--set", f"data.folder={idx_folder}",
                  "--set", "data.split=holdout", "--set", "optimizer.warmup_steps=100", *SMALL)
    assert done.returncode == 0, done.stderr
    actual = json.loads((tmp_path / "growth.json").read_text())
    found = actual["sizes"]
    assert set(actual["exponents"]) == {"examples", "batch", "parameters"}
    assert found["half the batch"]["batch_size"] == 4
    assert found[BASE]["examples"] == 183 and found["1/4 of the examples"]["examples"] == 46
    assert found["twice as wide"]["parameters"] > found[BASE]["parameters"]
    for size in found.values():
        assert len(size["timings"]) == ROUNDS
        assert size["epoch_seconds"] == pytest.approx(
            -(-size["examples"] // size["batch_size"]) * size["milliseconds"] / 1000)
        assert 50e6 < size["peak_bytes"] < size["memory_bound"]
    assert all(name in done.stdout for name in (*found, "dense_cnn grows with examples to the"))
