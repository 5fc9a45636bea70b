"""Files of a run folder that hold anything at all: they work, or one line says what is wrong."""

import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.reports.comparison import comparison_table
from flaxdigits.studies.records import read_record
from flaxdigits.studies.seeds import summarize
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]

RECORD = ROOT / "experiments" / "results" / "dense_cnn" / "original-seed0.json"
CLOCKS = {"seconds_compiling": 1.0, "seconds_training": 1.0, "seconds_evaluating": 1.0,
          "steps_per_second": 9.0}
VALUES = [3, -1, 2**70, 1.5, math.nan, math.inf, "text", "", "\0", True, None, [], [1, "a"], {},
          {"a": 1}, [[[]]], "9" * 5000]
CONTENTS = [b"", b"3", b"[]", b'"text"', b"null", b"NaN", b"\xff\xfe{}", b"{", b"\0" * 9, b"{}",
            b"1" * 10_000, b'{"step": ' + b"1" * 10_000 + b"}", b"[" * 10_000 + b"]" * 10_000,
            b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b'{"a": "\\ud800"}',
            b'{"step":' + b"[" * 40 + b"]" * 40 + b"}", b"{}\n{}\n"]


def paths_of(value, path=()):
    """The places of all values within a JSON value."""
    inner = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ())
    for name, one in inner:
        yield (*path, name)
        yield from paths_of(one, (*path, name))


def mutated(value, rng: random.Random) -> bytes:
    """A JSON value with one place in it deleted or of another kind, or other bytes altogether."""
    if rng.random() < 0.2:
        return rng.choice(CONTENTS)
    value = json.loads(json.dumps(value))
    *path, last = rng.choice(list(paths_of(value)))
    node = value
    for name in path:
        node = node[name]
    if rng.random() < 0.3:
        del node[last]
    else:
        node[last] = rng.choice(VALUES)
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def documents() -> dict[str, dict]:
    record = json.loads(RECORD.read_text())
    result = record.pop("result")
    scores = {name: value for name, value in result.items() if name.startswith(
        ("train_a", "train_l", "train_e", "validation_", "test_"))}
    return {
        "config.json": record, "result.json": result | CLOCKS,
        "diverged.json": {"step": 3, "message": "the loss is not finite"},
        "metrics.jsonl": {"step": 1, "epoch": 1, "train_loss": 2.0, "train_accuracy": 0.1,
                          "learning_rate": 0.1, "seconds_training": 0.5, "validation_loss": 2.0,
                          "validation_accuracy": 0.2},
        "eval.jsonl": {"step": 1, "data_source": "real", "fingerprint": "f0"} | scores}


def readers(workdir: Path) -> list:
    """What reads the run in `seeds/0` of a folder."""
    folder = RunFolder(workdir / "seeds" / "0")
    return [
        folder.config, folder.data, folder.metadata, folder.result, folder.diverged,
        folder.has_ended, lambda: folder.rows("eval.jsonl"), lambda: folder.truncate_metrics(3),
        lambda: folder.differences(
            {"config": {"seed": 0}, "data": {"fingerprint": "f"}, "init_from": None}),
        lambda: comparison_table([folder]), lambda: read_record(folder.path),
        lambda: summarize(workdir, [0])]


def write_files(workdir: Path, documents: dict[str, dict], left_out: str) -> Path:
    run = workdir / "seeds" / "0"
    run.mkdir(parents=True)
    for name, document in documents.items():
        if name != left_out:
            (run / name).write_text(json.dumps(document) + "\n")
    return run


def check_readers(workdir: Path, damaged: Path) -> int:
    """Calls every reader; returns how many refused, each in a line that names the file."""
    refused = 0
    for read in readers(workdir):
        try:
            read()
        except FlaxdigitsError as error:
            found = str(error)
            assert "\n" not in found and len(found) < 1000
            assert damaged.name in found or "its result is of another seed" in found
            refused += 1
    return refused


NAMES = ["config.json", "result.json", "diverged.json", "metrics.jsonl", "eval.jsonl"]


@pytest.mark.parametrize("name", NAMES)
def test_other_json_than_expected_is_one_line_or_works(name, documents, tmp_path):
    rng = random.Random(f"run files {name}")
    refused = 0
    for case in range(60):
        workdir = tmp_path / str(case)
        unread = "result.json" if name == "diverged.json" else "diverged.json"
        run = write_files(workdir, documents, left_out=unread)
        (run / name).write_bytes(mutated(documents[name], rng) + b"\n")
        refused += check_readers(workdir, run / name) > 0
    assert refused > 15


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_a_path_that_is_not_a_file_is_an_error_of_one_line(make, name, documents, tmp_path):
    run = write_files(tmp_path, documents, left_out="diverged.json")
    (run / name).unlink(missing_ok=True)
    make(run / name)
    assert check_readers(tmp_path, run / name) > 0


def test_records_of_other_json_are_one_line(documents, tmp_path):
    rng = random.Random("records")
    whole = json.loads(RECORD.read_text())
    path, refused = tmp_path / "original-seed0.json", 0
    for _ in range(80):
        path.write_bytes(mutated(whole, rng))
        try:
            read_record(path)
        except FlaxdigitsError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            refused += 1
    assert refused > 30


def test_the_message_names_file_field_and_what_to_do(finished_copy):
    path = finished_copy / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": "six"}))
    with pytest.raises(FlaxdigitsError) as error:
        RunFolder(finished_copy).result()
    assert str(error.value) == (
        f"{path}: steps must be a positive integer, got 'six'; delete it and repeat the "
        "training command, which then evaluates the run again")
    rows = finished_copy / "metrics.jsonl"
    rows.write_text(rows.read_text() + '{"step": -1}\n')
    message = r"metrics\.jsonl, line \d+: step must be a non-negative integer"
    with pytest.raises(FlaxdigitsError, match=message):
        RunFolder(finished_copy).truncate_metrics(6)


@pytest.mark.parametrize("section", ["data", "optimizer", "train"])
def test_a_section_of_the_config_of_a_run_is_not_replaced_by_defaults(section, finished_copy):
    path = finished_copy / "config.json"
    recorded = json.loads(path.read_text())
    del recorded["config"][section]
    path.write_text(json.dumps(recorded))
    with pytest.raises(FlaxdigitsError) as error:
        RunFolder(finished_copy).config()
    assert str(error.value).startswith(
        f"{path}: in config: missing required field {section}; ")


@pytest.mark.parametrize("field", ["data.folder", "data.indices", "train.init_from"])
def test_a_path_in_the_config_of_a_run_is_a_string(field, finished_copy):
    path, (section, name) = finished_copy / "config.json", field.split(".")
    recorded = json.loads(path.read_text())
    recorded["config"][section][name] = 2
    path.write_text(json.dumps(recorded))
    with pytest.raises(FlaxdigitsError) as error:
        comparison_table([finished_copy])
    assert str(error.value).startswith(
        f"{path}: in config.{section}: {name} must be a string or null, got 2; ")


def test_a_loss_may_be_infinite(finished_copy):
    path = finished_copy / "result.json"
    result = json.loads(path.read_text()) | {"test_loss": math.inf}
    path.write_text(json.dumps(result))
    assert RunFolder(finished_copy).result() == result


MODES = {
    "train": [], "eval": ["--mode=eval", "--checkpoint=all"], "report": ["--mode=report"],
    "compare": ["--mode=compare"], "predict": ["--mode=predict"], "export": ["--mode=export"]}
CASES = 8


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_no_mode_shows_a_traceback(mode, finished, launch_here, tmp_path):
    image = tmp_path / "stroke.png"
    Image.fromarray(np.pad(np.full((20, 3), 255, np.uint8), 10)).save(image)
    rng = random.Random(f"modes {mode}")
    for case in range(CASES):
        run = Path(shutil.copytree(finished, tmp_path / str(case)))
        name = rng.choice(NAMES)
        there = (run / name).read_text().splitlines() if (run / name).exists() else ["{}"]
        document = json.loads(there[0] if name.endswith(".jsonl") else "".join(there)) or {
            "step": 3, "message": "no"}
        if name == "diverged.json":
            (run / "result.json").unlink()
        (run / name).write_bytes(mutated(document, rng) + b"\n")
        images = [f"--images={image}"] if mode == "predict" else []
        done = launch_here(*MODES[mode], *images, f"--workdir={run}")
        assert done.returncode in (0, 2), (case, name)
        assert done.stderr.count("error: ") == int(done.returncode == 2)


def test_a_pipe_in_the_place_of_a_file_does_not_hang(finished_copy, environment):
    (finished_copy / "result.json").unlink()
    os.mkfifo(finished_copy / "result.json")
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "--mode=compare", f"--workdir={finished_copy}"],
        env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "result.json: cannot be read: it is not a regular file" in done.stderr


def test_a_result_of_another_seed_is_refused(finished_copy):
    result = json.loads((finished_copy / "result.json").read_text())
    (finished_copy / "result.json").write_text(json.dumps(result | {"seed": result["seed"] + 1}))
    with pytest.raises(FlaxdigitsError, match="is the result of another run: its seed is 1"):
        RunFolder(finished_copy).result()
