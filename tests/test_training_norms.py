"""`train.log_norms`: the norms of gradient, update and parameters."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_checkpoints import opened  # noqa: F401

from flaxdigits.reports.finished_run import write_report_or_warn

pytest_plugins = ["tiny_run"]

NORMS = ("gradient_norm", "update_norm", "parameter_norm")
RECIPE = ("train.log_norms=true", "train.log_every=2", "checkpoint.every_steps=1")


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def vector(params):
    return np.concatenate([np.ravel(array).astype(np.float64) for layer in sorted(params)
                           for array in params[layer].values()])


@pytest.mark.parametrize("freeze, trained", [
    ("", ("Conv_0", "Dense_0", "Dense_1")), ("Conv_*,Dense_0", ("Dense_1",))])
def test_norms_are_those_of_the_last_step_of_the_row(
    freeze, trained, train_tiny, opened, tmp_path  # noqa: F811
):
    clip = 1e-3
    train_tiny(tmp_path, *RECIPE, f"train.freeze={freeze or '()'}", f"optimizer.clip_norm={clip}",
               write_report=write_report_or_warn)
    checkpoints = opened(tmp_path / "checkpoints")
    params = {step: {layer: checkpoints.restore_arrays(step)["params"][layer] for layer in trained}
              for step in checkpoints.steps()}
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 6]
    for row in rows:
        before, after = (vector(params[step]) for step in (row["step"] - 1, row["step"]))
        assert row["parameter_norm"] == pytest.approx(np.linalg.norm(after), rel=1e-6)
        assert row["update_norm"] == pytest.approx(np.linalg.norm(after - before), rel=1e-2)
        # SGD with a rate of 0.1 on a gradient that is clipped to a norm far below its own.
        assert row["update_norm"] == pytest.approx(0.1 * clip, rel=1e-3)
        assert row["gradient_norm"] > 10 * clip
    assert (tmp_path / "figures" / "norms.png").exists()
    assert "norms of parameters, gradient and update" in (tmp_path / "report.html").read_text()


def test_the_gradient_is_that_of_the_batch(train_tiny, tmp_path):
    train_tiny(tmp_path / "sgd", *RECIPE)
    for row in rows_of(tmp_path / "sgd"):
        assert row["update_norm"] == pytest.approx(0.1 * row["gradient_norm"], rel=1e-5)


def test_runs_without_them_are_the_same(finished, train_tiny, opened, tmp_path):  # noqa: F811
    assert not any(name in row for row in rows_of(finished) for name in NORMS)
    assert not (finished / "figures" / "norms.png").exists()
    train_tiny(tmp_path, "train.log_norms=true")
    found, wanted = (vector(opened(run / "checkpoints").restore_arrays(6)["params"])
                     for run in (tmp_path, finished))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_norms_do_not_depend_on_the_devices(idx_folder, environment, tmp_path):
    rows = {}
    for devices, parallel in ((1, "jit"), (2, "jit"), (2, "pmap")):
        workdir = tmp_path / f"{devices} {parallel}"
        done = subprocess.run(
            [sys.executable, "launch.py", "--experiment=mse_cnn", f"--workdir={workdir}",
             "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}",
             "--set=train.log_norms=true", "--set=train.log_every=1", "--set=train.steps=3",
             f"--set=train.parallel={parallel}", "--set=train.freeze=Conv_0", "--notensorboard"],
            cwd=ROOT, text=True, capture_output=True, check=False, timeout=280,
            env=environment | {"JAX_NUM_CPU_DEVICES": str(devices)})
        assert done.returncode == 0, done.stderr
        rows[devices, parallel] = [[row[name] for name in NORMS] for row in rows_of(workdir)]
    first, *others = (np.array(values) for values in rows.values())
    assert first.shape == (3, 3) and (first > 0).all()
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4)
