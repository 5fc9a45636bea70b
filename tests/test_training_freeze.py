"""`train.freeze`: layers whose parameters are not trained."""

import numpy as np
import pytest
from test_checkpoints import opened, refusal  # noqa: F401
from test_training_norms import rows_of
from test_training_resume import assert_bitwise_equal

from flaxdigits.evaluation.checkpoints import evaluate_checkpoints
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.freezing import check_freeze, merge_params, split_params
from flaxdigits.training.runs import train_many

pytest_plugins = ["tiny_run"]

PARAMS = {"Block_0": {"Conv_0": {"kernel": np.ones(2), "bias": np.zeros(1)},
                      "BatchNorm_0": {"scale": np.ones(1)}},
          "Dense_0": {"kernel": np.ones(3), "bias": np.zeros(3)}, "position": np.zeros(4)}


def state_of(checkpoints, step=6):
    return checkpoints.restore_arrays(step)


def leaves(tree, path=""):
    if not isinstance(tree, dict | list):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {name: leaf for key, value in items
            for name, leaf in leaves(value, f"{path}/{key}").items()}


@pytest.mark.parametrize("patterns, frozen", [
    ((), set()),
    (("Dense_0",), {"/Dense_0/kernel", "/Dense_0/bias"}),
    (("Block_0/*",), {"/Block_0/Conv_0/kernel", "/Block_0/Conv_0/bias",
                      "/Block_0/BatchNorm_0/scale"}),
    (("*/BatchNorm_?", "position"), {"/Block_0/BatchNorm_0/scale", "/position"}),
    (("*bias",), {"/Block_0/Conv_0/bias", "/Dense_0/bias"}),
])
def test_patterns_name_modules_layers_and_arrays(patterns, frozen):
    check_freeze(PARAMS, patterns)
    trained, kept = split_params(PARAMS, patterns)
    assert leaves(kept).keys() == frozen
    assert leaves(trained).keys() == leaves(PARAMS).keys() - frozen
    assert merge_params(trained, kept) == PARAMS


def test_a_pattern_without_a_layer_is_an_error(train_tiny, tmp_path):
    for patterns, message in {
            "Conv_*,Cov_0": "train.freeze: 'Cov_0' matches no layer; the layers are Conv_0, "
                            "Dense_0, Dense_1",
            "*": "train.freeze: * matches every layer and leaves nothing to train; the layers are "
                 "Conv_0, Dense_0, Dense_1"}.items():
        assert refusal(train_tiny, tmp_path / "run", f"train.freeze={patterns}") == message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", [
    "optimizer=adamw optimizer.weight_decay=0.1 optimizer.decayed=all train.ema_decay=0.9",
    "optimizer=muon optimizer.weight_decay=0.1 train.objective=sam train.l2_penalty=0.1",
    "optimizer=optax.lamb optimizer.clip_norm=1 train.objective=fast_adversarial",
    "optimizer.momentum=0.9 train.objective=distillation train.objective.teacher={finished}",
])
def test_frozen_layers_stay_as_they_are(
    recipe, finished, train_tiny, tiny_config, tiny_data, opened, tmp_path  # noqa: F811
):
    recipe = ["optimizer.learning_rate=0.01", *recipe.format(finished=finished).split(),
              f"train.init_from={finished}", "train.freeze=Conv_*,Dense_0"]
    train_tiny(tmp_path, *recipe)
    start, state = (state_of(opened(run / "checkpoints")) for run in (finished, tmp_path))
    for tree in filter(None, (state["params"], state["ema"])):
        for layer in ("Conv_0", "Dense_0"):
            for name, array in start["params"][layer].items():
                np.testing.assert_array_equal(tree[layer][name], array, err_msg=f"{layer} {name}")
        assert (tree["Dense_1"]["kernel"] != start["params"]["Dense_1"]["kernel"]).mean() > 0.5
    moments = [name for name in leaves(state["opt_state"]) if "kernel" in name]
    assert moments and all("Dense_1" in name for name in moments)
    config = apply_overrides(tiny_config, recipe)
    rows = list(evaluate_checkpoints(config, tiny_data, tmp_path, "last"))
    assert [row["step"] for row in rows] == [6]


def test_a_run_with_frozen_layers_is_resumed_bitwise(train_tiny, tmp_path):
    recipe = ["train.freeze=Conv_0", "optimizer=adam", "train.ema_decay=0.9"]
    train_tiny(tmp_path / "whole", *recipe)
    for stop_after in (2, 5, "none"):
        train_tiny(tmp_path / "parts", *recipe, f"train.stop_after={stop_after}")
    assert_bitwise_equal(tmp_path / "parts", tmp_path / "whole")
    assert "train.freeze was ['Conv_0'] and is []" in refusal(
        train_tiny, tmp_path / "parts", *recipe[1:])


def test_seeds_at_once_keep_their_layers_and_log_their_norms(
    tiny_config, tiny_data, train_tiny, opened, tmp_path  # noqa: F811
):
    recipe = ["train.freeze=Dense_0", "train.log_norms=true", "train.log_every=2"]
    configs = {tmp_path / str(seed): apply_overrides(
        tiny_config, [*recipe, f"seed={seed}", "train.seeds_per_call=2"]) for seed in (0, 1)}
    outcomes = train_many(configs, tiny_data)
    train_tiny(tmp_path / "single", *recipe, "seed=1")
    found, wanted = (state_of(opened(tmp_path / run / "checkpoints"), 2)["params"]
                     for run in ("1", "single"))
    np.testing.assert_array_equal(found["Dense_0"]["kernel"], wanted["Dense_0"]["kernel"])
    assert all(outcome.step == 6 for outcome in outcomes.values())
    rows, alone = ([{name: value for name, value in row.items() if name.endswith("norm")}
                    for row in rows_of(tmp_path / run)] for run in ("1", "single"))
    assert rows == [pytest.approx(row, rel=1e-4) for row in alone] and len(rows[0]) == 3
    assert rows != [pytest.approx(row, rel=1e-4) for row in rows_of(tmp_path / "0")]
