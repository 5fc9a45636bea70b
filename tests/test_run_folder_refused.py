"""The files of a run where a disk, its modes or its file system refuse them."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import pytest
from conftest import ROOT
from test_run_folder import ABOUT, CONFIG, files, refusal

from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]

WRITES = {
    "record_config": lambda folder: RunFolder(folder.path / "another").record_config(CONFIG, ABOUT),
    "check_writable": lambda folder: folder.check_writable(),
    "append": lambda folder: folder.append("metrics.jsonl", {"step": 1}),
    "truncate_metrics": lambda folder: folder.truncate_metrics(0),
    "write_json": lambda folder: folder.write_json("result.json", {}),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_path_below_a_file_is_an_error(write, tmp_path):
    (tmp_path / "file").write_text("mine")
    message = refusal(WRITES[write], RunFolder(tmp_path / "file" / "run"))
    assert str(tmp_path / "file" / "run") in message and "cannot write" in message
    assert files(tmp_path) == {"file": b"mine"}


@contextlib.contextmanager
def without_root():
    """Lets file modes bind even where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", [0o555, 0o000])
@pytest.mark.parametrize("write", WRITES)
def test_a_read_only_folder_is_an_error(write, mode):
    outer = Path(tempfile.mkdtemp())  # not tmp_path, which others may not enter
    try:
        folder = RunFolder(outer / "run")
        folder.record_config(CONFIG, ABOUT)
        before = files(outer)
        outer.chmod(0o755)
        folder.path.chmod(mode)
        with without_root():
            message = refusal(WRITES[write], folder)
        assert str(folder.path) in message
        folder.path.chmod(0o755)
        assert files(outer) == before
    finally:
        shutil.rmtree(outer)


def test_a_run_is_found_where_nothing_may_be_written():
    outer = Path(tempfile.mkdtemp())
    try:
        folder = RunFolder(outer / "run")
        folder.record_config(CONFIG, ABOUT)
        outer.chmod(0o755)
        folder.path.chmod(0o555)
        with without_root():
            folder.record_config(CONFIG, ABOUT)
            another = ABOUT | {"data": ABOUT["data"] | {"source": "drawn"}}
            assert "data.source was" in refusal(folder.record_config, CONFIG, another)
    finally:
        shutil.rmtree(outer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here to write to")
def test_a_full_disk_is_reported_and_the_old_file_kept(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json("summary.json", {"steps": 1})
    before = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, limits[1]))
    try:
        message = refusal(folder.write_json, "summary.json", {"steps": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in message and str(tmp_path / "summary.json") in message
    assert files(tmp_path) == before
    (folder.path / "metrics.jsonl").symlink_to("/dev/full")
    assert "No space left" in refusal(folder.append, "metrics.jsonl", {"step": 1})


def tiny_flags(idx_folder, workdir):
    return ["--experiment=mse_cnn", "--set=data.dataset=idx_files",
            f"--set=data.folder={idx_folder}", "--set=train.steps=6",
            "--set=checkpoint.every_steps=2", "--set=train.batch_size=50",
            f"--workdir={workdir}"]


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_no_checkpoint(
    environment, launch_here, idx_folder, tmp_path
):
    flags = tiny_flags(idx_folder, tmp_path / "run")
    assert launch_here(*flags, "--set=train.stop_after=2").returncode == 0
    kept = files(tmp_path / "run" / "checkpoints" / "2")

    # No file over 24 KiB: smaller than the weights, larger than config.json. The programs are
    # compiled already, so that no larger file but the checkpoint's is written.
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 24; exec "$@"', "bash", sys.executable, str(ROOT / "launch.py"),
         *flags],
        env=environment | {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir},
        capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    note, error = done.stderr.splitlines()
    assert note.endswith("resuming at step 2 of 6 (epoch 1)")
    assert "cannot save a checkpoint" in error
    assert files(tmp_path / "run" / "checkpoints" / "2") == kept
    assert not (tmp_path / "run" / "result.json").exists()

    done = launch_here(*flags)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert rows[-1]["step"] == 6


def test_training_where_nothing_can_be_written_is_one_line(launch_here, idx_folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = launch_here(*tiny_flags(idx_folder, tmp_path / "file" / "run"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "cannot write" in done.stderr
