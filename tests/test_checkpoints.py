"""Checkpoints: which are kept, and what one that does not fit or cannot be read says."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.checkpoints import evaluate_checkpoints
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.checkpoints import DELETED, CheckpointRecord, Checkpoints
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]


def refusal(function, *arguments) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def opened():
    """Opens checkpoint folders and closes them in the end."""
    made = []

    def open_folder(folder, keep=None):
        made.append(Checkpoints(folder, keep))
        return made[-1]

    yield open_folder
    for checkpoints in made:
        checkpoints.close()


def state(step):
    return {"params": {"kernel": jnp.full((3, 2), step, jnp.float32)}, "step": jnp.int32(step)}


def save_scored(checkpoints, accuracies):
    for step, accuracy in enumerate(accuracies, start=1):
        loss = None if accuracy is None else 1.0
        checkpoints.save(step, state(step), CheckpointRecord(
            seconds_training=float(step), validation_accuracy=accuracy, validation_loss=loss))
    checkpoints.wait()


def scored_rows(workdir):
    return RunFolder(workdir).rows("eval.jsonl")


@pytest.mark.parametrize(("keep", "accuracies", "kept", "best"), [
    (1, [None, None, None], [3], None),
    (2, [None] * 5, [4, 5], None),
    (2, [0.5, 0.9, 0.6, 0.7, 0.8], [2, 4, 5], 2),
    (1, [0.5, 0.9, 0.6, 0.95, 0.8], [4, 5], 4),
    (1, [0.5, 0.6, 0.7], [3], 3),
    (2, [0.5, None, None, 0.4], [1, 3, 4], 1),
    (None, [0.5, 0.9, 0.6, None], [1, 2, 3, 4], 2),
    (None, [0.9, 0.9, 0.5], [1, 2, 3], 2),  # of equals the newest
])
def test_the_newest_and_the_best_are_kept(keep, accuracies, kept, best, opened, tmp_path):
    checkpoints = opened(tmp_path / "checkpoints", keep)
    save_scored(checkpoints, accuracies)
    for seen in (checkpoints, opened(tmp_path / "checkpoints", keep)):
        assert seen.steps() == kept
        assert seen.last() == kept[-1]
        assert seen.best() == best
        assert [seen.record(step).seconds_training for step in kept] == kept
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == kept


def test_of_equally_accurate_checkpoints_the_one_with_the_lower_loss_is_best(opened, tmp_path):
    checkpoints = opened(tmp_path)
    for step, loss in enumerate((0.3, 0.1, 0.2), start=1):
        checkpoints.save(
            step, state(step), CheckpointRecord(validation_accuracy=0.9, validation_loss=loss))
    assert checkpoints.best() == 2


def test_retention_continues_after_reopening(opened, tmp_path):
    save_scored(opened(tmp_path, 2), [0.9, 0.1, 0.2])
    again = opened(tmp_path, 1)
    again.save(7, state(7), CheckpointRecord(validation_accuracy=0.3, validation_loss=1.0))
    again.wait()
    assert again.steps() == [1, 7]


def test_a_kill_during_a_deletion_leaves_no_partial_checkpoint(opened, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *given, **options: None)
        save_scored(opened(tmp_path, 2), [None, None, None])
    assert (tmp_path / DELETED / "1").is_dir() and not (tmp_path / "1").exists()
    assert opened(tmp_path, 2).steps() == [2, 3]
    assert not (tmp_path / DELETED).exists()


def test_a_restored_state_equals_the_saved_state(opened, tmp_path):
    save_scored(opened(tmp_path), [None, None])
    back = opened(tmp_path).restore(2, state(0))
    np.testing.assert_array_equal(back["params"]["kernel"], state(2)["params"]["kernel"])
    assert back["step"].dtype == jnp.int32 and int(back["step"]) == 2


def test_a_saved_step_is_not_overwritten(opened, tmp_path):
    checkpoints = opened(tmp_path)
    save_scored(checkpoints, [0.5])
    checkpoints.save(1, state(9), CheckpointRecord(validation_accuracy=0.1))
    checkpoints.wait()
    assert int(checkpoints.restore(1, state(0))["step"]) == 1
    assert checkpoints.record(1).validation_accuracy == 0.5


def test_an_empty_folder_has_no_checkpoints(opened, tmp_path):
    checkpoints = opened(tmp_path / "checkpoints")
    assert checkpoints.steps() == [] and checkpoints.last() is None and checkpoints.best() is None


@pytest.mark.parametrize(("target", "message"), [
    ({"params": {"kernel": jnp.zeros((3, 5))}, "step": jnp.int32(0)},
     "params.kernel has shape [3, 2], but this config requires shape [3, 5]"),
    ({"params": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}, "step": jnp.int32(0)},
     "params.bias is missing, but this config requires shape [2]"),
    ({"params": {"kernel": jnp.zeros((3, 2))}},
     "step has shape [], but this config has no such array"),
])
def test_another_architecture_is_refused_by_the_name_of_the_array(
    target, message, opened, tmp_path
):
    checkpoints = opened(tmp_path)
    save_scored(checkpoints, [None])
    assert message in refusal(checkpoints.restore, 1, target)


def test_eval_with_another_architecture_names_the_array(finished_copy, tiny_config, tiny_data):
    other = apply_overrides(tiny_config, ["model.dense=9"])
    rows = evaluate_checkpoints(other, tiny_data, RunFolder(finished_copy), "last")
    assert "params.Dense_0.bias has shape [8], but this config requires shape [9]" in refusal(
        next, rows)
    assert not (finished_copy / "eval.jsonl").exists()


def biggest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()),
               key=lambda path: path.stat().st_size)


def emptied(step_folder):
    biggest_file(step_folder / "state").write_bytes(b"")


def cut(step_folder):
    path = biggest_file(step_folder / "state")
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def altered(step_folder):
    path = biggest_file(step_folder / "state")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 - 50:len(content) // 2 + 50] = bytes(100)
    path.write_bytes(content)


def without_state(step_folder):
    shutil.rmtree(step_folder / "state")


def without_record(step_folder):
    shutil.rmtree(step_folder / "record")


def with_an_odd_record(step_folder):
    biggest_file(step_folder / "record").write_text('{"speed": 3}')


@pytest.mark.parametrize("damage", [
    emptied, cut, altered, without_state, without_record, with_an_odd_record])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax
def test_a_damaged_checkpoint_is_one_line_where_it_is_asked_for(
    damage, finished_copy, launch_here
):
    damage(finished_copy / "checkpoints" / "6")
    done = launch_here("--mode=eval", f"--workdir={finished_copy}", "--checkpoint=6")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"{finished_copy / 'checkpoints' / '6'}: cannot read" in done.stderr
    assert not (finished_copy / "eval.jsonl").exists()


@pytest.mark.parametrize("damage", [without_record, with_an_odd_record])
def test_a_damaged_record_is_named_where_the_best_is_chosen(damage, finished_copy, launch_here):
    damage(finished_copy / "checkpoints" / "4")
    for which in ("last", "2"):
        done = launch_here("--mode=eval", f"--workdir={finished_copy}", f"--checkpoint={which}")
        assert done.returncode == 0, done.stderr
    done = launch_here("--mode=eval", f"--workdir={finished_copy}", "--checkpoint=best")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{finished_copy / 'checkpoints' / '4'}: cannot read" in done.stderr


def test_eval_uses_the_checkpoint_before_a_damaged_last_one_and_notes_it(finished_copy, launch):
    altered(finished_copy / "checkpoints" / "6")  # orbax leaves coroutines behind that complain
    done = launch("--mode=eval", f"--workdir={finished_copy}")
    assert done.returncode == 0 and done.stdout.startswith("step 4 "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr[:2000]
    assert f"{finished_copy / 'checkpoints' / '6'}: the checkpoint is damaged" in done.stderr
    assert "the checkpoint of step 4 is used instead" in done.stderr
    assert [row["step"] for row in scored_rows(finished_copy)] == [4]


def test_a_damaged_checkpoint_leaves_the_others_readable(finished_copy, launch_here):
    emptied(finished_copy / "checkpoints" / "6")
    done = launch_here("--mode=eval", f"--workdir={finished_copy}", "--checkpoint=4")
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in scored_rows(finished_copy)] == [4]


def test_evaluating_takes_nothing_from_a_run_that_is_still_saving(finished_copy, launch_here):
    saving = finished_copy / "checkpoints" / "8.orbax-checkpoint-tmp"
    saving.mkdir()
    (saving / "half").write_text("written")
    done = launch_here("--mode=eval", f"--workdir={finished_copy}")
    assert done.returncode == 0, done.stderr
    assert (saving / "half").exists()


def test_eval_of_all_continues_with_unevaluated_checkpoints(finished_copy, launch_here):
    def evaluate(which):
        done = launch_here("--mode=eval", f"--workdir={finished_copy}", f"--checkpoint={which}")
        assert done.returncode == 0, done.stderr
        return [line.split()[1] for line in done.stdout.splitlines()]

    assert evaluate("all") == ["2", "4", "6"]
    whole = scored_rows(finished_copy)
    assert [row["step"] for row in whole] == [2, 4, 6]

    marked = whole[0] | {"train_errors": 12345}  # scored again, it would not come back
    (finished_copy / "eval.jsonl").write_text(json.dumps(marked) + '\n{"step": 4, "train_acc')
    assert evaluate("all") == ["2", "4", "6"]
    assert RunFolder(finished_copy).rows("eval.jsonl") == [marked, *whole[1:]]

    assert evaluate("last") == ["6"]
    assert evaluate("4") == ["4"]
    assert scored_rows(finished_copy)[-1] == whole[1]


@pytest.mark.quick
def test_best_is_the_most_accurate_on_the_validation_split(finished_copy, launch_here):
    scored = {row["step"]: (row["validation_accuracy"], -row["validation_loss"])
              for row in RunFolder(finished_copy).rows("metrics.jsonl")
              if "validation_accuracy" in row}
    best = max(scored, key=scored.get)
    done = launch_here("--mode=eval", f"--workdir={finished_copy}", "--checkpoint=best")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"step {best} ")


def test_best_without_a_validation_split_is_refused(train_tiny, launch_here, tmp_path):
    train_tiny(tmp_path, "data.split=official", "train.steps=1")
    done = launch_here("--mode=eval", f"--workdir={tmp_path}", "--checkpoint=best")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "has no validation part" in done.stderr


@pytest.mark.parametrize("rate", ["0.1", "1e-12"])
def test_the_result_is_about_the_best_when_asked(rate, train_tiny, tmp_path, opened):
    result = train_tiny(tmp_path, "checkpoint.select=best", f"optimizer.learning_rate={rate}",
                        "checkpoint.keep=1").result
    best = opened(tmp_path / "checkpoints").best()
    assert result["checkpoint"] == "best" and result["checkpoint_step"] == best
    record = opened(tmp_path / "checkpoints").record(best)
    assert result["validation_accuracy"] == record.validation_accuracy
    assert result["validation_loss"] == pytest.approx(record.validation_loss)
    assert 0 <= result["train_accuracy_running"] <= 1  # of the last epoch, whichever is reported


def test_eval_of_a_run_without_checkpoints_is_an_error(finished_copy, launch_here):
    shutil.rmtree(finished_copy / "checkpoints")
    for make in (lambda: None, (finished_copy / "checkpoints").mkdir):
        make()
        done = launch_here("--mode=eval", f"--workdir={finished_copy}")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "has no checkpoint yet" in done.stderr
