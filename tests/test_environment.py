"""What the environment of the process may be: JAX's variables, streams, users, disks, encodings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from conftest import ROOT
from test_training_resume import without_clocks

import flaxdigits
from flaxdigits.api.console import make_console
from flaxdigits.api.predict import _find
from flaxdigits.cli.compilation_cache import CacheWarnings
from flaxdigits.data.batches import BatchPlan
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.models import build_model
from flaxdigits.patterns import expand_user
from flaxdigits.training.memory import check_memory, free_memory, state_bytes, step_bytes
from flaxdigits.training.state import init_variables

pytest_plugins = ["tiny_run"]

LAUNCH = str(ROOT / "launch.py")
SUMMARY = ("--experiment=mse_cnn", "--mode=summary")
PINNED = {
    "jax_default_prng_impl": "rbg", "jax_threefry_partitionable": False, "jax_enable_x64": True,
    "jax_disable_jit": True, "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise", "jax_transfer_guard": "disallow",
    "jax_default_matmul_precision": "bfloat16", "jax_random_seed_offset": 3}
FREE = {"jax_debug_nans": True, "jax_check_tracer_leaks": True, "jax_log_compiles": True}


@pytest.mark.parametrize("settings", [PINNED, FREE], ids=["pinned", "free"])
def test_a_run_is_the_same_under_every_setting_of_jax(settings, finished, tmp_path, caplog):
    config = flaxdigits.recorded_experiment(finished)
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    try:
        result = flaxdigits.train(
            config, tmp_path / "run", tensorboard=False, console=make_console(quiet=True)).result
        assert {name: getattr(jax.config, name) for name in settings} == settings
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert without_clocks(result) == without_clocks(flaxdigits.RunFolder(finished).result())
    for name, value in settings.items():
        notes = [note for note in caplog.messages if f"{name.upper()}={value}" in note]
        assert len(notes) == (1 if settings is PINNED else 0), name


def test_settings_that_are_ignored_are_one_note(launch):
    done = launch(*SUMMARY, env={"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg"})
    assert done.returncode == 0
    assert done.stderr == ("note: JAX settings ignored, since results must not depend on them: "
                           "JAX_DEFAULT_PRNG_IMPL=rbg, JAX_ENABLE_X64=True\n")


@pytest.mark.parametrize(("variables", "arguments", "named"), [
    ({"JAX_PLATFORMS": "nonsense"}, ("--experiment=mse_cnn",), "JAX_PLATFORMS=nonsense"),
    ({"JAX_PLATFORMS": "cuda"}, ("--experiment=mse_cnn", "--mode=growth"), "JAX_PLATFORMS=cuda"),
    ({"JAX_ENABLE_X64": "maybe"}, SUMMARY, "JAX_ENABLE_X64"),
])
def test_what_jax_cannot_start_with_is_one_line(variables, arguments, named, launch, tmp_path):
    done = launch(*arguments, env=variables, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert named in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


# Executes several command lines in one process, and prints the status and output of each as JSON.
SEVERAL = """
import contextlib, io, json, sys
from absl.testing import flagsaver
from flaxdigits.cli.main import main
done = {}
for line in sys.argv[1:]:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        with flagsaver.flagsaver():
            status = main(["launch.py", *line.split()])
    done[line] = status, output.getvalue(), errors.getvalue()
print(json.dumps(done))
"""


def test_a_platform_that_is_not_there_is_one_line_in_every_mode(
    finished_copy, environment, tmp_path
):
    folder = tmp_path / "new"
    folder.mkdir()
    modes = [f"--mode={mode} --workdir={finished_copy}" for mode in ("eval", "export", "report")]
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, *modes,
         f"--mode=predict --workdir={finished_copy} --images={ROOT / 'README.md'}",
         " ".join(SUMMARY), "--experiment=mse_cnn --mode=benchmark",
         "--experiment=mse_cnn --seeds=0,1"],
        env=environment | {"JAX_PLATFORMS": "nonsense", "PYTHONPATH": str(ROOT)}, cwd=folder,
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line, (status, output, errors) in json.loads(done.stdout).items():
        assert status == 2 and output == "", line
        assert "JAX_PLATFORMS=nonsense" in errors and errors.count("\n") == 1, (line, errors)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("level", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_layers_are_listed_where_asserts_are_left_out(level, launch):
    done = launch(*SUMMARY, env={"PYTHONOPTIMIZE": level}, timeout=120)
    assert done.returncode == 0 and "17,802" in done.stdout, done.stderr


def shell(command, environment, **variables):
    return subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, LAUNCH], env=environment | variables,
        capture_output=True, text=True, check=False, cwd=ROOT)


TRAIN = ('"$@" --experiment=mse_cnn --notensorboard --set=train.steps=2 --set=model.filters=1,1 '
         '--set=data.dataset=idx_files --set=data.folder={data} --workdir={run} ')


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(("stream", "message"), [
    (">/dev/full", "No space left"),
    pytest.param(">&-", "Bad file descriptor", marks=pytest.mark.slow)])
def test_a_training_succeeds_without_standard_output(
    stream, message, environment, idx_folder, tmp_path
):
    done = shell(TRAIN.format(data=idx_folder, run=tmp_path / "run") + stream, environment)
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 2


def test_json_is_valid_in_every_encoding(environment, tmp_path):
    command = '"$@" --experiment=mse_cnn --mode=config --set=data.dataset=image_folder '
    done = shell(command + f"--set=data.folder={tmp_path}/é一", environment,
                 PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["data"]["folder"] == f"{tmp_path}/é一"


@pytest.mark.slow
def test_damaged_compiled_programs_are_replaced_with_one_note(launch, tmp_path):
    variables = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path),
                 "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    draw = ("--experiment=mse_cnn", "--mode=data", "--data=synthetic",
            f"--workdir={tmp_path / 'sheet'}")
    assert launch(*draw, env=variables).stderr == ""
    entries = list(tmp_path.glob("*-cache"))
    assert len(entries) > 1
    for entry in entries:
        entry.write_bytes(b"")
    done = launch(*draw, env=variables)
    assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr
    assert "damaged compiled programs are replaced" in done.stderr
    assert all(entry.stat().st_size for entry in entries)
    assert launch(*draw, env=variables).stderr == ""


@pytest.mark.parametrize(("cache", "is_deleted"), [(None, False), ("cache", True)])
def test_damaged_programs_are_deleted_only_in_the_cache_folder(
        cache, is_deleted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry, other, longer, notes = (tmp_path / name for name in (
        "cache/jit_steps-1a-cache", "cache/jit_other-1a-cache", "cache/jit_steps-more-1a-cache",
        "jit_steps-notes.txt"))
    entry.parent.mkdir()
    for file in (entry, other, longer, notes):
        file.touch()
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", cache and str(tmp_path / cache))
    try:
        CacheWarnings()("Error reading persistent compilation cache entry for 'jit_steps': damaged",
                        UserWarning, "jax.py", 1)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert entry.exists() is not is_deleted
    assert other.exists() and longer.exists() and notes.exists()


@pytest.fixture
def full_disk(tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)], check=False,
        capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("no small file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_causes_no_traceback(full_disk, environment, idx_folder):
    command = TRAIN.replace("--notensorboard", "").format(data=idx_folder, run=full_disk / "run")
    done = shell(command, environment)
    assert done.returncode == 2
    assert "No space left" in done.stderr.splitlines()[-1]
    assert all(line.startswith(("note: ", "error: ")) for line in done.stderr.splitlines())


@pytest.mark.parametrize("path", ["~nosuchuser", "~nosuchuser/*.png"])
def test_a_home_folder_that_is_not_there_is_named(path):
    with pytest.raises(FlaxdigitsError, match="no home folder for ~nosuchuser"):
        expand_user(path)


@pytest.mark.parametrize("path", ["./~x.png", "./~nosuchuser/x", "a/~x"])
def test_only_a_leading_tilde_is_a_home_folder(path):
    assert expand_user(expand_user(path)) in (Path(path), Path(path).absolute())


def test_an_image_whose_name_begins_with_a_tilde_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("~x.png").touch()
    assert _find(["./~x.png"]) == [str(tmp_path / "~x.png")]


@pytest.mark.parametrize("command", ["--list", "--experiment=mse_cnn --mode=config"])
def test_a_listing_into_a_closed_pipe_ends_without_an_error(command, environment):
    done = shell(f'"$@" {command} | head -1', environment)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


@pytest.mark.parametrize("argument", [
    "--workdir=~nosuchuser/x", "--raw_data_dir=~nosuchuser", "--data_dir=~nosuchuser",
    "--set=train.init_from=~nosuchuser/x", "--experiment=~nosuchuser/x.py"])
def test_paths_of_an_unknown_user_are_one_line(argument, launch_here):
    done = launch_here("--experiment=mse_cnn", argument)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "no home folder for ~nosuchuser" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"),
                    reason="only root can become an unknown user")
def test_a_user_without_name_and_home(environment, tmp_path):
    variables = {name: value for name, value in environment.items()
                 if name not in ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR",
                                 "JAX_COMPILATION_CACHE_DIR")}
    right = "-all,+dac_override"  # to read the files of this interpreter
    unknown = f"setpriv --reuid=54321 --inh-caps={right} --ambient-caps={right} "
    done = shell(unknown + '"$@" --list', variables)
    assert done.returncode == 0 and "mse_cnn" in done.stdout, done.stderr
    done = shell(unknown + '"$@" --experiment=mse_cnn --mode=prepare', variables)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "specify a folder with data_dir or TFDS_DATA_DIR" in done.stderr


def test_insufficient_memory_is_an_error_of_one_line(launch_here, idx_folder, tmp_path):
    assert free_memory() is None or free_memory() > 0
    check_memory(1, "one byte")
    done = launch_here(
        "--experiment=dense_cnn", "--set=model.dense=1000000,1000000", f"--workdir={tmp_path}",
        "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "the train state of dense_cnn needs" in done.stderr
    assert list(tmp_path.iterdir()) == []
    done = launch_here(
        "--experiment=dense_cnn", "--set=model.filters=400000", "--set=model.dense=1",
        f"--workdir={tmp_path}", "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "a train step with train.batch_size=32 needs" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["chinese_cnn", "mnist_cnn", "mse_cnn", "kaggle_cnn", "dense_cnn"])
def test_the_recipes_fit_a_machine_of_8_gb(name):
    config = load_experiment(name)
    image, classes = ((64, 64, 1), 15) if name == "chinese_cnn" else ((28, 28, 1), 10)
    model = build_model(config.model, classes)
    variables = jax.eval_shape(lambda: init_variables(model, 0, image))
    needed = step_bytes(model, variables, image, config.train.batch_size)
    assert 0 < needed + 5 * state_bytes(variables["params"]) < 4e9
    large = step_bytes(model, jax.eval_shape(lambda: init_variables(model, 0, (280, 280, 1))),
                       (280, 280, 1), config.train.batch_size)
    assert large > 10 * needed


def test_a_batch_holds_no_more_rows_than_there_are_examples():
    assert BatchPlan(examples=10, batch_size=1000, devices=4).padded_batch_size == 12
    assert BatchPlan(examples=1000, batch_size=10, devices=4).padded_batch_size == 12
