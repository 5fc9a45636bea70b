"""Checkpoints that are damaged, deleted or another run's: never a wrong number."""

import dataclasses
import json
import logging
import random
import shutil

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_checkpoints import opened, refusal  # noqa: F401

from flaxdigits.components import register
from flaxdigits.evaluation.checkpoints import evaluate_checkpoints
from flaxdigits.optimizers import Optimizer
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.checkpoints import CheckpointRecord, Checkpoints, flat_arrays
from flaxdigits.training.digests import array_digest
from flaxdigits.training.experiment import Experiment, non_finite_part
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.runs import train_many

pytest_plugins = ["tiny_run"]
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning")  # coroutines that orbax leaves behind

FLIPS = 4  # of each file


@pytest.mark.parametrize("array", [
    np.float32(3), np.zeros((0, 4), np.float32), np.arange(7, dtype=np.int32),
    np.zeros((3, 4096), np.uint8), np.ones((100_005,), np.float32),
    np.asarray(jnp.linspace(0, 1, 3000, dtype=jnp.bfloat16))], ids=lambda array: str(array.shape))
def test_a_digest_depends_on_every_bit(array):
    array = np.asarray(array)
    digest, chosen = array_digest(array), random.Random(0)
    assert digest == array_digest(array.copy())
    content = array.tobytes()
    places = [chosen.randrange(len(content)) for _ in range(30)] if content else []
    for place in [*places, *([0, len(content) - 1] if content else [])]:
        changed = bytearray(content)
        changed[place] ^= 1 << chosen.randrange(8)
        changed = np.frombuffer(bytes(changed), array.dtype).reshape(array.shape)
        assert array_digest(changed) != digest, place


def test_a_digest_depends_on_order_shape_and_dtype():
    array = np.arange(4 * 4096, dtype=np.float32)
    digests = {array_digest(array), array_digest(array.reshape(4, -1)),
               array_digest(array.view(np.int32)), array_digest(array[::-1]),
               array_digest(np.roll(array, 2)), array_digest(np.roll(array, 1024))}
    swapped = array.copy()
    swapped[[0, 2]] = swapped[[2, 0]]
    assert len(digests | {array_digest(swapped)}) == 7


def state(step):
    rng = np.random.default_rng(step)
    return {
        "params": {"kernel": jnp.asarray(rng.normal(size=(200, 10)).astype(np.float32)),
                   "bias": jnp.asarray(rng.normal(size=7).astype(np.float32))},
        "opt_state": [jnp.int32(step), {"nu": jnp.asarray(rng.normal(size=9), jnp.bfloat16)}]}


def damages_of(content, chosen):
    """Contents of a file that is damaged in one way or another; None of one that is deleted."""
    yield from (None, b"", content[:len(content) // 2])
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        yield bytes(flipped)


def test_restored_arrays_equal_the_saved_arrays_whatever_file_is_damaged(opened, tmp_path):  # noqa: F811
    checkpoints = opened(tmp_path / "whole")
    for step in (2, 4):
        checkpoints.save(step, state(step), CheckpointRecord(
            validation_accuracy=0.5, validation_loss=1.0))
    checkpoints.wait()
    wanted = {step: {name: np.asarray(array) for name, array in flat_arrays(state(step)).items()}
              for step in (2, 4)}
    chosen, used = random.Random(0), []
    files = sorted(path.relative_to(tmp_path / "whole")
                   for path in (tmp_path / "whole" / "4").rglob("*") if path.is_file())
    damages = [(file, content) for file in files
               for content in damages_of((tmp_path / "whole" / file).read_bytes(), chosen)]
    for file, content in damages:
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content)
        for restore in (lambda of, step: of.restore(step, state(0)), Checkpoints.restore_arrays):
            reader = Checkpoints(folder, access="read")
            step, restored = reader.restore_newest_intact(
                lambda step, of=reader, restore=restore: restore(of, step))
            reader.close()
            arrays = flat_arrays(restored)
            assert arrays.keys() == wanted[step].keys()
            for name, array in wanted[step].items():
                np.testing.assert_array_equal(arrays[name], array, err_msg=f"{file} {name}")
            used.append(step)
    assert used.count(2) > len(used) // 4  # the rest is of files that are not read


def replace_state(folder, step, arrays):
    """Puts other arrays of the same names and shapes into a checkpoint, as readable as before."""
    other = Checkpoints(folder.parent / "other")
    other.save(step, arrays, CheckpointRecord())
    other.close()
    shutil.rmtree(folder / str(step) / "state")
    shutil.move(folder.parent / "other" / str(step) / "state", folder / str(step) / "state")
    shutil.rmtree(folder.parent / "other")


def without_digests(step_folder):
    """Makes a record as it was before there were digests."""
    path = step_folder / "record" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text())["record"]))


@pytest.fixture
def unfinished(finished_copy):
    """A copy of a finished run that has all its checkpoints, and no result yet."""
    (finished_copy / "result.json").unlink()
    return finished_copy


@pytest.fixture
def last_state(tiny_config, tiny_data, opened):  # noqa: F811
    """The state that a run folder ends with."""
    def read(workdir):
        checkpoints = opened(workdir / "checkpoints")
        return checkpoints.restore(
            checkpoints.last(), Experiment.create(tiny_config, tiny_data).state_shapes)

    return read


def comparable(values):
    return {name: value for name, value in values.items()
            if not name.startswith(("seconds", "steps_per"))}


def assert_ended_as(workdir, finished):
    for name in ("metrics.jsonl", "result.json"):
        rows, expected = (
            [comparable(row) for row in (RunFolder(folder).rows(name) if name.endswith("l") else
                                         [json.loads((folder / name).read_text())])]
            for folder in (workdir, finished))
        assert rows == expected, name
    assert not (workdir / "diverged.json").exists()


def altered_weights(train_state):
    return train_state.replace(params={
        layer: {name: array + 1 for name, array in arrays.items()}
        for layer, arrays in train_state.params.items()})


def weights_of_nan(train_state):
    return train_state.replace(params={
        layer: {name: array * jnp.nan for name, array in arrays.items()}
        for layer, arrays in train_state.params.items()})


# Without digests, finite damaged weights cannot be distinguished from the saved ones.
@pytest.mark.parametrize(("alter", "has_digests"), [
    (altered_weights, True), (weights_of_nan, True), (weights_of_nan, False)])
def test_training_resumes_from_the_checkpoint_before_a_damaged_one(
    alter, has_digests, unfinished, finished, train_tiny, last_state, caplog
):
    whole = last_state(unfinished)
    replace_state(unfinished / "checkpoints", 6, alter(whole))
    if not has_digests:
        for step in (2, 4, 6):
            without_digests(unfinished / "checkpoints" / str(step))
    train_tiny(unfinished)
    assert_ended_as(unfinished, finished)
    assert f"{unfinished / 'checkpoints' / '6'}: the checkpoint is damaged" in caplog.text
    assert "the checkpoint of step 4 is used instead" in caplog.text
    np.testing.assert_array_equal(
        last_state(unfinished).params["Dense_0"]["kernel"], whole.params["Dense_0"]["kernel"])


def test_without_an_intact_checkpoint_training_is_refused_and_nothing_deleted(
    unfinished, train_tiny
):
    for step in (2, 4, 6):
        (unfinished / "checkpoints" / str(step) / "record" / "metadata").write_text("{")
    before = sorted(unfinished.rglob("*"))
    assert f"{unfinished / 'checkpoints'}: all checkpoints are damaged" in refusal(
        train_tiny, unfinished)
    assert [path for path in before if not path.exists()] == []
    assert not (unfinished / "diverged.json").exists()


def test_a_seed_with_a_damaged_checkpoint_counts_in_the_means(
    compiled_once, tiny_config, tiny_data, tmp_path, last_state
):
    configs = {tmp_path / str(seed): apply_overrides(tiny_config, [f"seed={seed}"])
               for seed in (0, 1)}
    before = train_many(configs, tiny_data)
    for folder in configs:
        (folder / "result.json").unlink()
    folder = tmp_path / "1"
    replace_state(folder / "checkpoints", 6, weights_of_nan(last_state(folder)))
    after = train_many(configs, tiny_data)
    assert {path: comparable(outcome.result) for path, outcome in after.items()} == {
        path: comparable(outcome.result) for path, outcome in before.items()}
    assert not (folder / "diverged.json").exists()


def test_a_damaged_record_of_an_older_checkpoint_does_not_stop_training(
    train_tiny, tmp_path, launch_here
):
    train_tiny(tmp_path, "train.stop_after=4", "checkpoint.keep=1", "evaluate.every_steps=2")
    older, *newer = sorted((tmp_path / "checkpoints").glob("[0-9]*"))
    (older / "record" / "metadata").write_text("{")
    assert train_tiny(tmp_path, "checkpoint.keep=1", "evaluate.every_steps=2").step == 6
    done = launch_here("--mode=eval", f"--workdir={tmp_path}", "--checkpoint=best")
    assert (done.returncode == 2) == bool(newer)


def test_checkpoints_without_digests_are_restored_with_a_note(finished_copy, launch_here, caplog):
    row, = rows_of_eval(launch_here, finished_copy)
    without_digests(finished_copy / "checkpoints" / "6")
    again = rows_of_eval(launch_here, finished_copy)[-1]
    assert again == row
    assert f"{finished_copy / 'checkpoints' / '6'}: the checkpoint was saved by an earlier " \
        "version without digests and cannot be verified" in caplog.text


def rows_of_eval(launch_here, workdir, *flags):
    done = launch_here("--mode=eval", f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    return RunFolder(workdir).rows("eval.jsonl")


def test_eval_notes_that_the_run_reached_a_later_step(finished_copy, launch_here, caplog):
    assert [row["step"] for row in rows_of_eval(launch_here, finished_copy)] == [6]
    assert "reached" not in caplog.text
    shutil.rmtree(finished_copy / "checkpoints" / "6")
    for flags in ((), ("--checkpoint=all",)):
        caplog.clear()
        rows = rows_of_eval(launch_here, finished_copy, *flags)
        assert [row["step"] for row in rows].count(4) == 1
        assert (f"{finished_copy}: the newest checkpoint is of step 4, and the run reached step 6"
                in caplog.text)


def test_eval_of_the_best_notes_that_a_better_one_was_deleted(
    finished_copy, launch_here, caplog, opened  # noqa: F811
):
    best = opened(finished_copy / "checkpoints").best()
    rows_of_eval(launch_here, finished_copy, "--checkpoint=best")
    assert "was better" not in caplog.text
    shutil.rmtree(finished_copy / "checkpoints" / str(best))
    rows_of_eval(launch_here, finished_copy, "--checkpoint=best")
    assert f"and step {best} was better" in caplog.text


def test_a_checkpoint_of_another_step_is_damaged(finished_copy, launch_here):
    folder = finished_copy / "checkpoints"
    shutil.rmtree(folder / "6")
    shutil.copytree(folder / "2", folder / "6")
    done = launch_here("--mode=eval", f"--workdir={finished_copy}", "--checkpoint=6")
    assert done.returncode == 2 and f"{folder / '6'}: cannot read" in done.stderr


def test_checkpoints_of_another_run_are_refused(finished_copy, train_tiny, tmp_path, launch_here):
    train_tiny(tmp_path / "next", "seed=1", "train.stop_after=2")
    shutil.rmtree(tmp_path / "next" / "checkpoints")
    shutil.move(finished_copy / "checkpoints", tmp_path / "next" / "checkpoints")
    found = refusal(train_tiny, tmp_path / "next", "seed=1")
    checkpoint = tmp_path / "next" / "checkpoints" / "6"
    assert f"{checkpoint}: this checkpoint belongs to a different run than config.json" in found
    done = launch_here("--mode=eval", f"--workdir={tmp_path / 'next'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "a different run" in done.stderr
    done = launch_here("--mode=export", f"--workdir={tmp_path / 'next'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "a different run" in done.stderr
    found = refusal(train_tiny, tmp_path / "third", f"train.init_from={tmp_path / 'next'}")
    assert "a different run" in found


def test_export_uses_the_one_before_a_damaged_one_and_init_from_is_refused(
    finished_copy, last_state, launch_here, train_tiny, tmp_path, caplog
):
    place = finished_copy / "checkpoints" / "6"
    replace_state(place.parent, 6, altered_weights(last_state(finished_copy)))
    done = launch_here("--mode=export", f"--workdir={finished_copy}")
    assert done.returncode == 0, done.stderr
    assert f"{place}: the checkpoint is damaged" in caplog.text
    with np.load(finished_copy / "export" / "program.npz", allow_pickle=False) as file:
        assert file["step"] == 4
    found = refusal(train_tiny, tmp_path / "next", f"train.init_from={finished_copy}")
    assert f"{place}: cannot read a checkpoint" in found
    done = launch_here("--mode=report", f"--workdir={finished_copy}")
    assert done.returncode == 2 and f"{place}: cannot read a checkpoint" in done.stderr


def test_the_result_is_not_about_a_damaged_best(train_tiny, tmp_path, opened, tiny_config,  # noqa: F811
                                                tiny_data):
    assignments = ["checkpoint.select=best", "evaluate.every_steps=2"]
    train_tiny(tmp_path, *assignments)
    (tmp_path / "result.json").unlink()
    checkpoints = opened(tmp_path / "checkpoints")
    best = checkpoints.best()
    saved = checkpoints.restore(best, Experiment.create(tiny_config, tiny_data).state_shapes)
    if best == checkpoints.last():  # it is trained again then
        train_tiny(tmp_path, *assignments)
        (tmp_path / "result.json").unlink()
    replace_state(tmp_path / "checkpoints", best, altered_weights(saved))
    if best == checkpoints.last():
        assert train_tiny(tmp_path, *assignments).result["checkpoint_step"] == best
    else:
        found = refusal(train_tiny, tmp_path, *assignments)
        assert f"{tmp_path / 'checkpoints' / str(best)}: cannot read a checkpoint" in found
        assert not (tmp_path / "result.json").exists()


def test_eval_of_all_names_the_damaged_and_scores_the_others(finished_copy, launch_here, caplog):
    (finished_copy / "checkpoints" / "4" / "record" / "metadata").write_text("{")
    done = launch_here("--mode=eval", f"--workdir={finished_copy}", "--checkpoint=all")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{finished_copy / 'checkpoints'}: damaged and not evaluated: step 4" in done.stderr
    assert [row["step"] for row in RunFolder(finished_copy).rows("eval.jsonl")] == [2, 6]


def test_eval_of_all_skips_checkpoints_that_are_deleted_during_it(
    finished_copy, tiny_config, tiny_data, caplog
):
    rows = evaluate_checkpoints(tiny_config, tiny_data, RunFolder(finished_copy), "all")
    assert next(rows)["step"] == 2
    shutil.rmtree(finished_copy / "checkpoints" / "4")
    assert [row["step"] for row in rows] == [6]
    assert "the checkpoint of step 4 was deleted by another process" in caplog.text
    assert "damaged" not in caplog.text


def test_the_newest_checkpoint_is_looked_up_again_if_it_is_deleted(finished_copy, tiny_config,
                                                                     tiny_data):
    reader = Checkpoints(finished_copy / "checkpoints", access="read")
    shutil.rmtree(finished_copy / "checkpoints" / "6")
    target = Experiment.create(tiny_config, tiny_data).state_shapes
    step, _ = reader.restore_newest_intact(lambda step: reader.restore(step, target))
    reader.close()
    assert step == 4


def test_two_evaluations_at_once_score_each_checkpoint_once(
    finished_copy, tiny_config, tiny_data
):
    one, other = (evaluate_checkpoints(tiny_config, tiny_data, RunFolder(finished_copy), "all")
                  for _ in range(2))
    pairs = list(zip(one, other, strict=True))
    assert all(row == same for row, same in pairs)
    assert [row["step"] for row in RunFolder(finished_copy).rows("eval.jsonl")] == [2, 4, 6]


@pytest.mark.parametrize("part", ["opt_state", "model_state", "ema"])
def test_an_overflow_anywhere_in_the_state_is_a_divergence(part, tiny_config, tiny_data):
    state = Experiment.create(apply_overrides(tiny_config, [
        "train.ema_decay=0.9", "optimizer.name=adam"]), tiny_data).initial_state()
    assert non_finite_part(state) is None
    value = {"batch_stats": {"mean": jnp.array([0.0, jnp.inf])}}
    assert non_finite_part(state.replace(**{part: value})) is not None


@dataclasses.dataclass(frozen=True)
class Overflowing(Optimizer):
    """Descends by the gradient, with a state that is infinite after four steps."""

    def build(self, learning_rate):
        grows = optax.GradientTransformation(
            lambda params: jnp.float32(1), lambda updates, state, params: (updates, 1e10 * state))
        return optax.chain(grows, optax.scale_by_learning_rate(learning_rate))


def test_an_optimizer_state_that_overflows_ends_the_run_as_diverged(
    train_tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(Optimizer, "registered", dict(Optimizer.registered))
    register("overflowing")(Overflowing)
    expected = refusal(train_tiny, tmp_path, "optimizer.name=overflowing")
    assert "not finite at step" in expected
    assert not (tmp_path / "result.json").exists()
    assert json.loads((tmp_path / "diverged.json").read_text())["message"] == expected


def test_notes_are_logged_as_warnings(finished_copy, launch_here, caplog):
    with caplog.at_level(logging.WARNING):
        (finished_copy / "checkpoints" / "6" / "record" / "metadata").write_text("{")
        rows_of_eval(launch_here, finished_copy)
    assert [record.levelname for record in caplog.records
            if record.name.startswith("flaxdigits.training")] == ["WARNING"]
