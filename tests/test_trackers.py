"""Trackers: the order of their calls, TensorBoard event files, traces, custom trackers."""

import gzip
import http.server
import io
import json
import textwrap
import threading

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import train

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment, load_trackers
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.profile import Profile
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.tensorboard import TensorBoard
from flaxdigits.training.trackers import Tracker

pytest_plugins = ["tiny_run"]


class Notes(Tracker):
    """Records the calls of its methods."""

    def __init__(self):
        self.calls = []

    def start(self, config, workdir, step, total_steps):
        self.calls.append(("start", config.experiment, workdir.name, step, total_steps))

    def advance(self, step, rate, loss, accuracy):
        assert rate > 0 and loss > 0 and 0 <= accuracy <= 1
        self.calls.append(("advance", step))

    def row(self, row):
        self.calls.append(("row", row["step"]))

    def finish(self, result, figures):
        assert all(path.is_file() for path in figures.values())
        self.calls.append(("finish", result["steps"], sorted(figures)))

    def stop(self):
        self.calls.append(("stop",))


@pytest.fixture
def track(compiled_once, tiny_config, tiny_data, tmp_path):
    """Trains the tiny run in tmp_path / "run" with some trackers."""
    def run(trackers, *assignments):
        config = apply_overrides(tiny_config, assignments)
        return train(config, tiny_data, tmp_path / "run", trackers)

    return run


def events(workdir):
    accumulator = EventAccumulator(str(workdir / "tensorboard"))
    accumulator.Reload()
    return accumulator


def test_the_methods_of_a_tracker_are_called_in_order(track):
    first, second = Notes(), Notes()
    track([first], "train.stop_after=3")
    track([second])
    assert first.calls[0] == ("start", "tiny", "run", 0, 6) and first.calls[-1] == ("stop",)
    assert [step for what, *step in first.calls if what == "advance"][-1] == [3]
    assert "finish" not in {what for what, *_ in first.calls}
    assert second.calls[0] == ("start", "tiny", "run", 3, 6)
    assert [step for what, *step in second.calls if what == "row"] == [[4], [6]]
    figures = ["confusion", "error", "filters", "loss", "mistakes", "samples"]
    assert second.calls[-2:] == [("finish", 6, figures), ("stop",)]
    third = Notes()
    track([third])
    assert third.calls == [], "the run is complete: nothing starts"


def test_a_tracker_is_notified_of_the_end_of_a_failed_run(track):
    notes = Notes()
    with pytest.raises(FlaxdigitsError, match="not finite"):
        track([notes], "optimizer.learning_rate=1e30")
    assert notes.calls[-1] == ("stop",)


@pytest.mark.parametrize("method", ["start", "advance", "row", "finish", "stop"])
def test_a_failing_tracker_is_removed_with_a_warning(method, track, caplog):
    def fail(*arguments):
        raise ConnectionError("the service\nis down")

    failing, notes = Notes(), Notes()
    setattr(failing, method, fail)
    outcome = track([failing, notes])
    assert outcome.result["steps"] == 6
    # Orbax has words of its own for a slow disk.
    assert [record.message for record in caplog.records if record.name.startswith("flaxdigits")] \
        == [f"Notes.{method} failed, and the tracker is disabled: "
            "ConnectionError: the service is down"]
    assert notes.calls[-1] == ("stop",)
    if method != "stop":
        assert ("stop",) not in failing.calls


def test_event_files_contain_curves_config_and_figures(track, tmp_path):
    track([TensorBoard()], "data.split=holdout", "train.log_every=1", "train.log_norms=true")
    read, rows = events(tmp_path / "run"), RunFolder(tmp_path / "run").rows("metrics.jsonl")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for tag, name in (("loss/train", "train_loss"), ("accuracy/train", "train_accuracy"),
                      ("accuracy/validation", "validation_accuracy"),
                      ("learning_rate", "learning_rate"), ("norm/gradient", "gradient_norm")):
        expected = [(row["step"], row[name]) for row in rows if name in row]
        scalars = [(scalar.step, scalar.value) for scalar in read.Scalars(tag)]
        assert scalars == [(step, pytest.approx(value)) for step, value in expected], tag
    assert read.Scalars("accuracy/test")[0].value == pytest.approx(result["test_accuracy"])
    text = read.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text)["train"]["log_every"] == 1
    image = read.Images("figures/confusion")[0].encoded_image_string
    saved = Image.open(tmp_path / "run" / "figures" / "confusion.png").convert("RGB")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image))), np.asarray(saved))


class Killed(Tracker):
    """Dies as a run that is killed does: after its rows, before its checkpoint."""

    def row(self, row):
        if row["step"] == 5:
            raise KeyboardInterrupt


def test_event_files_of_a_resumed_run_show_no_step_twice(track, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        track([TensorBoard(), Killed()], "train.log_every=1", "checkpoint.every_steps=4",
              "train.batch_size=20")
    before = [scalar.step for scalar in events(tmp_path / "run").Scalars("loss/train")]
    assert before == [1, 2, 3, 4, 5], "5 is written, and is lost with the run"
    track([TensorBoard()], "train.log_every=1", "checkpoint.every_steps=4", "train.batch_size=20")
    read = events(tmp_path / "run")
    assert [scalar.step for scalar in read.Scalars("loss/train")] == [1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 2


@pytest.mark.slow
def test_event_files_are_written_by_default_and_left_out_on_demand(launch, idx_folder, tmp_path):
    recipe = ["--experiment=dense_cnn", "--set=data.dataset=idx_files", "--set=model.filters=2",
              f"--set=data.folder={idx_folder}", "--set=train.steps=30", "--set=model.dense=4"]
    (tmp_path / "torch").mkdir()  # which tensorboardX would import, and not be asked for
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('PyTorch is imported')")
    done = launch(*recipe, f"--workdir={tmp_path / 'a'}", "--profile",
                  env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "accuracy/test" in events(tmp_path / "a").Tags()["scalars"]
    (trace,) = (tmp_path / "a" / "profile").rglob("perfetto_trace.json.gz")
    assert f"profile: {trace}, for ui.perfetto.dev" in done.stdout
    done = launch(*recipe, f"--workdir={tmp_path / 'b'}", "--notensorboard")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert not (tmp_path / "b" / "tensorboard").exists()
    assert not (tmp_path / "b" / "profile").exists()


def test_a_profile_shows_steps_that_ran_and_no_compilation(track, tmp_path):
    profile = Profile()
    track([profile], "train.steps=60")
    with gzip.open(profile.trace) as file:
        spans = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    names = {event["name"] for event in spans}
    assert any(name.startswith(("dot", "while")) for name in names)
    assert any("train_steps" in name for name in names)
    assert not any("backend_compile" in name for name in names)
    assert list(profile.trace.parent.glob("*.xplane.pb"))


def test_there_is_no_profile_of_too_few_steps(track, launch_here, tmp_path):
    track([], "train.stop_after=6")
    done = launch_here(f"--workdir={tmp_path / 'run'}", "--profile")
    assert done.returncode == 0 and "no profile: too few steps were left to train" in done.stdout


OWN = '''
"""A custom tracker."""
import json
import urllib.request
from flaxdigits.config import ExperimentConfig, ModelConfig, TrainConfig
from flaxdigits.training.trackers import Tracker

class Service(Tracker):
    def row(self, row):
        urllib.request.urlopen("{address}", json.dumps(row).encode())

def get_trackers():
    return [Service()]

def get_config():
    return ExperimentConfig("mine", ModelConfig("dense_cnn", filters=(2,), dense=(4,)),
                            train=TrainConfig(steps=2))
'''


@pytest.fixture
def service():
    """A server that keeps what is sent to it."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.received.append(
                json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("localhost", 0), Handler)
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_experiment_file_provides_trackers(service, launch_here, idx_folder, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN.format(address=f"http://localhost:{service.server_port}/"))
    done = launch_here(
        f"--experiment={path}", f"--workdir={tmp_path / 'run'}", "--set=data.dataset=idx_files",
        f"--set=data.folder={idx_folder}", "--notensorboard")
    assert done.returncode == 0, done.stderr
    assert service.received == RunFolder(tmp_path / "run").rows("metrics.jsonl")
    assert len(service.received) == 1


def test_an_experiment_file_is_executed_once(tmp_path):
    path = tmp_path / "counting.py"
    path.write_text(OWN + "\nopen(__file__ + '.log', 'a').write('x')\n")
    load_experiment(str(path))
    assert len(load_trackers(str(path))) == 1
    assert (tmp_path / "counting.py.log").read_text() == "x"
    assert load_trackers("mse_cnn") == []


@pytest.mark.parametrize(("text", "message"), [
    ("def get_trackers():\n    return [1]\n", "subclasses of flaxdigits.Tracker"),
    ("def get_trackers():\n    return 1 / 0\n", ":2: ZeroDivisionError"),
    ("get_trackers = 3\n", "not callable"),
])
def test_wrong_trackers_are_reported_in_one_line(text, message, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(textwrap.dedent(text))
    with pytest.raises(FlaxdigitsError) as error:
        load_trackers(str(path))
    assert message in str(error.value) and "\n" not in str(error.value)
