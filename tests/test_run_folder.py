"""The files of a run: whole at any moment, and of one run only."""

import json
import shutil
from pathlib import Path

import pytest

from flaxdigits.config import ExperimentConfig, ModelConfig, TrainConfig, to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]

CONFIG = ExperimentConfig("a", ModelConfig("dense_cnn", filters=(8,)))
ABOUT = {"data": {"dataset": "mnist", "source": "real", "fingerprint": "f0"},
         "versions": {"jax": "1"}, "git_commit": None}


def refusal(function, *arguments) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "deep" / "run")
    made.record_config(CONFIG, ABOUT)
    return made


def test_recording_writes_the_config_and_reads_it_back(folder):
    assert list(files(folder.path)) == ["config.json"]
    assert json.loads((folder.path / "config.json").read_text()) == {
        "config": to_dict(CONFIG), **ABOUT}
    assert folder.config() == CONFIG
    assert folder.data() == ABOUT["data"]
    assert folder.result() is None


def test_other_versions_pauses_and_keeping_are_the_same_run(folder):
    before = files(folder.path)
    later = ExperimentConfig(
        "a", CONFIG.model, train=TrainConfig(stop_after=5),
        checkpoint=type(CONFIG.checkpoint)(keep=None))
    folder.record_config(later, ABOUT | {"versions": {"jax": "2"}, "git_commit": "abc"})
    assert files(folder.path) == before


def test_the_process_that_trains_adds_to_what_another_one_recorded(tmp_path):
    folder, command = RunFolder(tmp_path), "flaxdigits --ablation=mine.py --executor=ray"
    described = ABOUT["data"] | {"framing": {"scale": 1}}
    folder.record_config(CONFIG, {"data": described, "command": command})
    folder.record_config(CONFIG, ABOUT | {"command": "python default_worker.py"})
    assert folder.metadata() == ABOUT | {"data": described, "command": command}


@pytest.mark.parametrize(("config", "data", "expected"), [
    (ExperimentConfig("a", CONFIG.model, seed=3), {}, "seed was 0 and is 3"),
    (ExperimentConfig("a", ModelConfig("dense_cnn", filters=(4,))), {},
     "model.filters was [8] and is [4]"),
    (ExperimentConfig("a", CONFIG.model, train=TrainConfig(epochs=2)), {},
     "train.epochs was 1 and is 2"),
    (CONFIG, {"source": "drawn"}, "data.source was 'real' and is 'drawn'"),
    (CONFIG, {"fingerprint": "f1"}, "data.fingerprint was 'f0' and is 'f1'"),
    (ExperimentConfig("b", CONFIG.model, seed=3), {"source": "drawn"},
     "data.source was 'real' and is 'drawn'; experiment was 'a' and is 'b'; seed was 0 and is 3"),
])
def test_another_run_is_refused_and_what_differs_is_named(folder, config, data, expected):
    before = files(folder.path)
    message = refusal(folder.record_config, config, ABOUT | {"data": ABOUT["data"] | data})
    assert expected in message and str(folder.path) in message and "workdir" in message
    assert files(folder.path) == before


def test_metadata_that_a_run_lacks_are_added_once(tmp_path):
    run_folder = RunFolder(tmp_path)
    run_folder.record_config(CONFIG, {"data": ABOUT["data"]})
    assert run_folder.metadata() == {"data": ABOUT["data"]}
    run_folder.record_config(CONFIG, ABOUT)
    assert run_folder.metadata() == ABOUT
    run_folder.record_config(CONFIG, ABOUT | {"git_commit": "later"})
    run_folder.record_config(CONFIG, {"data": ABOUT["data"]})
    assert run_folder.metadata() == ABOUT


def test_files_are_replaced_by_rename(folder):
    path = folder.path / "summary.json"
    folder.write_json("summary.json", {"name": "数字", "steps": 1})
    with open(path) as opened:  # whoever reads meanwhile has the whole old file
        folder.write_json("summary.json", {"steps": 2})
        assert json.load(opened) == {"name": "数字", "steps": 1}
    assert json.loads(path.read_text()) == {"steps": 2}
    assert list(files(folder.path)) == ["config.json", "summary.json"]


def test_only_the_writer_writes(tmp_path):
    other = RunFolder(tmp_path / "run", is_writer=False)
    other.record_config(CONFIG, ABOUT)
    other.check_writable()
    other.write_json("result.json", {})
    other.append("metrics.jsonl", {"step": 1})
    other.truncate_metrics(0)
    assert not (tmp_path / "run").exists()


def test_metrics_are_cut_back_to_a_step(folder):
    for step in range(1, 6):
        folder.append("metrics.jsonl", {"step": step})
    folder.truncate_metrics(3)
    assert folder.rows("metrics.jsonl") == [{"step": 1}, {"step": 2}, {"step": 3}]
    folder.append("metrics.jsonl", {"step": 4})
    assert len(folder.rows("metrics.jsonl")) == 4
    folder.truncate_metrics(0)
    assert folder.rows("metrics.jsonl") == []


SCORES = {"accuracy": 0.5, "loss": 1.0, "errors": 1, "examples": 2}
ROWS = {
    "metrics.jsonl": {},
    "eval.jsonl": {"data_source": "real", "fingerprint": "f0"} | {
        f"{split}_{name}": value for split in ("train", "validation", "test")
        for name, value in SCORES.items()}}


@pytest.mark.parametrize("name", ["metrics.jsonl", "eval.jsonl"])
def test_a_truncated_row_loses_only_itself(name, folder, caplog):
    rows = [{"step": step} | ROWS[name] for step in (1, 3)]
    assert folder.rows(name) == []
    folder.append(name, rows[0])
    with open(folder.path / name, "a") as file:
        file.write('{"step": 2, "train_lo')
    assert folder.rows(name) == rows[:1]
    assert caplog.text == ""
    folder.append(name, rows[1])
    assert folder.rows(name) == rows
    assert "line 2 is damaged and is skipped" in caplog.text


def test_a_folder_without_a_run_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        for read in (RunFolder(path).config, RunFolder(path).data):
            message = refusal(read)
            assert message.startswith(f"{path}: not a run folder") and "workdir" in message


DAMAGED = {
    "empty": b"",
    "cut short": json.dumps({"config": to_dict(CONFIG), **ABOUT}).encode()[:200],
    "no text": b"\xff\xfe\x00",
    "no object": b"[1, 2]",
    "no config": b'{"data": {}}',
    "no data": json.dumps({"config": to_dict(CONFIG)}).encode(),
    "config is a number": json.dumps({"config": 3, "data": ABOUT["data"]}).encode(),
    "data is a number": json.dumps({"config": to_dict(CONFIG), "data": 3}).encode(),
    "a field too many": json.dumps(
        {"config": to_dict(CONFIG) | {"speed": 3}, "data": ABOUT["data"]}).encode(),
    "a wrong value": json.dumps(
        {"config": to_dict(CONFIG) | {"seed": "x"}, "data": ABOUT["data"]}).encode(),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_config_is_reported_with_its_path_and_kept(case, folder):
    path = folder.path / "config.json"
    path.write_bytes(DAMAGED[case])

    def read():
        folder.config()
        folder.data()["source"].upper()

    assert str(path) in refusal(read)
    assert str(folder.path) in refusal(folder.record_config, CONFIG, ABOUT)
    assert path.read_bytes() == DAMAGED[case]


def test_a_damaged_result_is_reported_with_its_path(folder):
    for content in (b"", b'{"steps": 1', b"3"):
        (folder.path / "result.json").write_bytes(content)
        assert str(folder.path / "result.json") in refusal(folder.result)


def test_a_complete_run_prints_so_and_changes_nothing(finished_copy, train_tiny):
    before = files(finished_copy)
    outcome = train_tiny(finished_copy)
    assert outcome.step == outcome.total_steps == 6
    assert outcome.result == json.loads(before["result.json"])
    assert files(finished_copy) == before


def test_a_finished_folder_refuses_another_run(finished_copy, train_tiny):
    before = files(finished_copy)
    message = refusal(train_tiny, finished_copy, "seed=5")
    assert "seed was 0 and is 5" in message
    assert files(finished_copy) == before


def test_a_run_that_was_moved_to_such_a_path_is_read(finished, launch_here, tmp_path):
    moved = shutil.copytree(finished, tmp_path / "two[1]")
    done = launch_here("--mode=eval", f"--workdir={moved}")
    assert done.returncode == 0 and done.stdout.startswith("step 6"), done.stderr
    message = refusal(RunFolder(moved).record_config, CONFIG, ABOUT)
    assert "a run cannot be saved in a path with [ or ]" in message
