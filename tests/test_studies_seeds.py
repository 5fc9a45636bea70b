"""Many seeds: each as its own single run, whatever happens to the others, and their summary."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from scipy import stats
from test_training_resume import rows_of, saved_arrays, wait_for, without_clocks
from tiny_run import train

from flaxdigits.cli.context import parse_seeds
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.overrides import apply_overrides
from flaxdigits.studies.seeds import checked_seeds, train_seeds
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.program import TrainProgram
from flaxdigits.training.runs import train_many

pytest_plugins = ["tiny_run"]

# With this rate seeds 0, 1 and 3 stay finite and 2, 4 and 5 do not, by far.
FATAL = "optimizer.learning_rate=1e12"


def read(folder):
    return json.loads((folder / "result.json").read_text())


def assert_close(value, wanted, err_msg):
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5, err_msg=err_msg)


def assert_same_run(folder, expected, assert_equal=np.testing.assert_array_equal):
    arrays, wanted = saved_arrays(folder), saved_arrays(expected)
    assert arrays.keys() == wanted.keys()
    for name in wanted:
        assert_equal(arrays[name], wanted[name], err_msg=name)


@pytest.mark.parametrize(("text", "seeds"), [
    ("0..9", tuple(range(10))), ("0,3,7", (0, 3, 7)), ("4", (4,)), ("0..2, 8", (0, 1, 2, 8))])
def test_seeds_are_parsed(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(("text", "message"), [
    ("", "--seeds must be integers below 2**32 such as 0..9 or 0,3,7, got ''"),
    ("a", "--seeds must be integers below 2**32 such as 0..9 or 0,3,7, got 'a'"),
    ("-1", "--seeds must be integers below 2**32 such as 0..9 or 0,3,7, got '-1'"),
    ("1..", "--seeds must be integers below 2**32 such as 0..9 or 0,3,7, got '1..'"),
    ("0.5", "--seeds must be integers below 2**32 such as 0..9 or 0,3,7, got '0.5'"),
    ("0, 5..3", "--seeds: the range 5..3 is empty"),
    ("7,4294967296", "--seeds: a seed must be below 2**32, got 4294967296"),
    ("0..10000", "--seeds: a range can have at most 10,000 seeds, got 0..10000"),
    ("0,0", "--seeds contains a seed twice: 0,0")])
def test_other_seeds_are_rejected_with_their_reason(text, message):
    with pytest.raises(FlaxdigitsError, match=f"^{re.escape(message)}$"):
        parse_seeds(text)


def test_seeds_of_python_and_numpy_are_taken():
    for seeds in (range(2), [0, 1], np.arange(2), np.arange(2, dtype=np.uint32), iter((0, 1))):
        chosen = checked_seeds(seeds)
        assert chosen == (0, 1) and all(type(seed) is int for seed in chosen)


@pytest.mark.parametrize("seeds", [
    5, None, "01", (), (0, 0), (0, 1.5), np.array([0.0]), ("0",), (-1,), (2**32,)])
def test_invalid_seeds_are_refused(seeds):
    with pytest.raises(FlaxdigitsError, match="seeds must be distinct integers"):
        checked_seeds(seeds)


@pytest.fixture(scope="module")
def single_runs(train_tiny, tmp_path_factory):
    """Three seeds, each trained by itself."""
    folder = tmp_path_factory.mktemp("single_runs")
    for seed in range(3):
        train_tiny(folder / str(seed), f"seed={seed}")
    return folder


def test_each_seed_is_bitwise_equal_to_a_single_run(
    compiled_once, tiny_config, tiny_data, single_runs, tmp_path
):
    summary = train_seeds(tiny_config, range(3), tiny_data, tmp_path)
    for seed in range(3):
        folder = tmp_path / "seeds" / str(seed)
        assert without_clocks(read(folder)) == without_clocks(read(single_runs / str(seed)))
        assert_same_run(folder, single_runs / str(seed))
        ours, its = (json.loads((path / "config.json").read_text())["config"]
                     for path in (folder, single_runs / str(seed)))
        assert ours == its
    assert summary["finished"] == [0, 1, 2] and summary["diverged"] == {}


def test_seeds_under_vmap_equal_single_runs_except_for_rounding(
    compiled_once, tiny_config, tiny_data, single_runs, tmp_path
):
    together = apply_overrides(tiny_config, ["train.seeds_per_call=2"])
    train_seeds(together, range(3), tiny_data, tmp_path)  # two, then one and an empty place
    for seed in range(3):
        assert_same_run(tmp_path / "seeds" / str(seed), single_runs / str(seed), assert_close)


@pytest.mark.slow
def test_seeds_on_several_devices_equal_single_runs_except_for_rounding(
    launch, idx_folder, tmp_path
):
    settings = ["data.dataset=idx_files", f"data.folder={idx_folder}", "train.steps=4",
                "model.filters=4,4", "train.batch_size=17"]
    completed = launch("--experiment=mse_cnn", *(f"--set={setting}" for setting in settings),
                       "--seeds=0..2", f"--workdir={tmp_path}", env={"JAX_NUM_CPU_DEVICES": "2"})
    assert completed.returncode == 0, completed.stderr
    config = apply_overrides(load_experiment("mse_cnn"), settings)
    dataset = load_dataset(config.data, DataLocations())
    for seed in (1, 2):
        train(dataclasses.replace(config, seed=seed), dataset, tmp_path / f"alone_{seed}")
        assert_same_run(tmp_path / "seeds" / str(seed), tmp_path / f"alone_{seed}", assert_close)


@pytest.mark.parametrize("together", [1, 4])
def test_a_diverged_seed_is_recorded_and_the_others_continue(
    together, compiled_once, tiny_config, tiny_data, tmp_path
):
    config = apply_overrides(tiny_config, [FATAL, f"train.seeds_per_call={together}"])
    summary = train_seeds(config, (0, 2, 3, 4), tiny_data, tmp_path)
    assert summary["finished"] == [0, 3]
    assert list(summary["diverged"]) == ["2", "4"]
    for seed in ("2", "4"):
        folder = tmp_path / "seeds" / seed
        found = json.loads((folder / "diverged.json").read_text())
        assert found == summary["diverged"][seed] and found["step"] == 2
        assert "not finite at step 2: the checkpoint of step 2 stays" in found["message"]
        assert not (folder / "result.json").exists()
        assert all(np.isfinite(array).all() for array in saved_arrays(folder).values())
    assert summary["metrics"]["test_accuracy"]["n"] == 2


def test_a_summary_has_the_interval_of_every_metric(
    compiled_once, tiny_config, tiny_data, tmp_path
):
    summary = train_seeds(tiny_config, range(3), tiny_data, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    losses = [read(tmp_path / "seeds" / str(seed))["test_loss"] for seed in range(3)]
    mean, error = np.mean(losses), stats.sem(losses)
    low, high = stats.t.interval(0.95, 2, mean, error)
    expected = {"mean": mean, "sd": math.sqrt(3) * error, "n": 3, "low": low, "high": high}
    assert summary["metrics"]["test_loss"] == pytest.approx(expected)
    numbers = {name for name, value in read(tmp_path / "seeds" / "0").items()
               if type(value) in (int, float)}
    assert summary["metrics"].keys() == numbers - {"seed"}
    assert summary["dataset"] == "idx_files" and summary["seeds"] == [0, 1, 2]


@pytest.mark.slow
def test_a_summary_is_of_all_seeds_of_the_config_that_have_ended(
    compiled_once, tiny_config, tiny_data, train_tiny, tmp_path
):
    train_seeds(tiny_config, (0, 1), tiny_data, tmp_path)
    train_tiny(tmp_path / "seeds" / "7", "seed=7", "optimizer.learning_rate=0.2")
    train_tiny(tmp_path / "seeds" / "8", "seed=8", "train.stop_after=2")
    (tmp_path / "seeds" / "notes").mkdir()
    summary = train_seeds(
        apply_overrides(tiny_config, ["train.seeds_per_call=2"]), (3, 2), tiny_data, tmp_path)
    assert summary["seeds"] == summary["finished"] == [0, 1, 2, 3]
    assert summary["metrics"]["test_accuracy"]["n"] == 4
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_finished_seeds_are_not_trained_again(compiled_once, tiny_config, tiny_data, tmp_path):
    train_seeds(tiny_config, (0, 1), tiny_data, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()
              if path.name not in ("summary.json", "metrics.jsonl")}
    train_seeds(tiny_config, (0, 1, 2), tiny_data, tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_seed_started_as_a_single_run_is_resumed_with_others(
    train_tiny, tiny_config, tiny_data, single_runs, tmp_path
):
    train_tiny(tmp_path / "seeds" / "1", "seed=1", "train.stop_after=4")
    together = apply_overrides(tiny_config, ["train.seeds_per_call=3"])
    steps = []
    train_many({tmp_path / "seeds" / str(seed): dataclasses.replace(together, seed=seed)
                for seed in range(3)}, tiny_data,
               on_end=lambda path, outcome: steps.append((path.name, outcome.step)))
    assert steps == [("0", 6), ("1", 6), ("2", 6)]
    rows = [json.loads(line)["step"]
            for line in (tmp_path / "seeds" / "1" / "metrics.jsonl").read_text().splitlines()]
    assert rows == sorted(set(rows))
    expected = read(single_runs / "1")["train_loss"]
    assert read(tmp_path / "seeds" / "1")["train_loss"] == pytest.approx(expected, rel=1e-4)


def test_groups_shrink_until_they_fit_the_memory(tiny_config, tiny_data):
    experiment = Experiment.create(
        apply_overrides(tiny_config, ["train.seeds_per_call=8"]), tiny_data)
    assert TrainProgram(experiment, 8).runs_per_call == 8
    whole = TrainProgram(experiment, 8)
    whole.seconds_compiling()
    analysis = whole._compile(8).memory_analysis()
    needs = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    assert TrainProgram(experiment, 8, memory=needs).runs_per_call == 4
    assert TrainProgram(experiment, 8, memory=1).runs_per_call == 1


def test_runs_that_differ_in_more_are_not_trained_together(tiny_config, tiny_data, tmp_path):
    other = apply_overrides(tiny_config, ["optimizer.learning_rate=0.2"])
    with pytest.raises(FlaxdigitsError, match=r"differ only in seed and data\.fold"):
        train_many({tmp_path / "a": tiny_config, tmp_path / "b": other}, tiny_data)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_bitwise_equal(start, launch, idx_folder, tmp_path):
    recipe = ["--experiment=mse_cnn", "--set=data.dataset=idx_files",
              f"--set=data.folder={idx_folder}", "--set=data.split=holdout",
              "--set=train.steps=60", "--set=train.log_every=2", "--set=checkpoint.every_steps=10",
              "--set=model.filters=4,4", "--set=train.seeds_per_call=2", "--seeds=0..2"]
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    assert launch(*recipe, f"--workdir={uninterrupted}").returncode == 0
    process = start(*recipe, f"--workdir={killed}")
    wait_for(lambda: rows_of(killed / "seeds" / "1") >= 14, process)
    process.kill()
    process.communicate()
    completed = launch(*recipe, f"--workdir={killed}")
    assert completed.returncode == 0, completed.stderr
    for seed in "012":
        assert_same_run(killed / "seeds" / seed, uninterrupted / "seeds" / seed)
        assert (without_clocks(read(killed / "seeds" / seed))
                == without_clocks(read(uninterrupted / "seeds" / seed)))


def test_each_seed_is_printed(launch_here, idx_folder, tmp_path):
    recipe = ["--experiment=mse_cnn", "--set=data.dataset=idx_files",
              f"--set=data.folder={idx_folder}", "--set=train.steps=2", "--set=model.filters=4,4",
              f"--workdir={tmp_path / 'run'}"]
    completed = launch_here(*recipe, "--seeds=0,5")
    assert completed.returncode == 0 and completed.stderr == ""
    for text in ("seed 0: accuracy train", "seed 5: accuracy train", "2 seeds",
                 f"complete: {tmp_path / 'run' / 'summary.json'}"):
        assert text in completed.stdout
    for arguments, message in (
            ((*recipe, "--seeds=5..0"), "--seeds: the range 5..0 is empty"),
            ((*recipe, "--mode=summary", "--seeds=0"), "--seeds is only for"),
            ((*recipe, "--seeds=0..1", "--set=train.parallel=pmap"), "train.parallel=pmap")):
        completed = launch_here(*arguments)
        assert completed.returncode == 2 and completed.stderr.count("\n") == 1
        assert message in completed.stderr


def test_every_seed_diverged_is_an_error(launch_here, idx_folder, tmp_path):
    completed = launch_here(
        "--experiment=mse_cnn", "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}",
        "--set=train.steps=3", "--set=model.filters=4,4", "--set=train.loss=cross_entropy",
        "--set=optimizer.learning_rate=1e30", "--seeds=0..1", f"--workdir={tmp_path / 'run'}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert "every seed diverged: the loss is not finite at step" in completed.stderr
    assert list(json.loads((tmp_path / "run" / "summary.json").read_text())["diverged"]) == [
        "0", "1"]
