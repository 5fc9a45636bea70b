"""Custom experiment files, valid and invalid."""

import json

import pytest

from flaxdigits.config import ExperimentConfig, to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import list_experiments, load_experiment
from flaxdigits.overrides import field_names

pytest_plugins = ["tiny_run"]


def refusal(path) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        load_experiment(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_name_is_reported_with_similar_names():
    assert "did you mean chinese_cnn" in refusal("chinese_cn")
    assert "the names are chinese_cnn, " in refusal("zzz")
    assert "the names are chinese_cnn, " in refusal("../experiments/chinese_cnn")


def test_an_experiment_file_may_use_a_built_in_model(write):
    path = write("""
        from flaxdigits.config import ExperimentConfig, ModelConfig

        def get_config():
            return ExperimentConfig("mine", ModelConfig("mse_cnn", filters=(4, 4)))
    """)
    config = load_experiment(str(path))
    assert isinstance(config, ExperimentConfig) and config.experiment == "mine"
    assert "model.filters" in field_names(config)
    assert json.loads(json.dumps(to_dict(config)))["model"]["name"] == "mse_cnn"


GET_CONFIG = """
from flaxdigits.config import ExperimentConfig, ModelConfig, TrainConfig

def get_config():
"""


@pytest.mark.parametrize(("text", "line", "expected"), [
    ("x = 1\ny = (\n", "line 2", "SyntaxError"),
    ("def get_config():\n\tif 1:\n        return 1\n", "line 3", "TabError"),
    ("x = 1\nimport no_such_package\n", ":2", "No module named 'no_such_package'"),
    ("x = 1\n\nraise ValueError('wrong')\n", ":3", "ValueError: wrong"),
    ("raise ValueError('two\\nlines')\n", ":1", "ValueError: two"),
    ("raise SystemExit(3)\n", ":1", "SystemExit"),
    ("assert False\n", ":1", "AssertionError"),
    (GET_CONFIG + "    return ExperimentConfig('a')\n", ":5", "model"),
    (GET_CONFIG + "    config = ModelConfig('mlp', layers=3)\n    return config\n", ":5", "layers"),
    (GET_CONFIG + "    return helper()\n\ndef helper():\n    return 1 / 0\n", ":8", "ZeroDiv"),
    ("def get_config(name):\n    return name\n", "", "get_config() missing 1 required"),
    ("x = 1\n", "", "get_config"),
    ("get_config = 3\n", "", "not callable"),
    (GET_CONFIG + "    return {'experiment': 'a'}\n", "", "got dict"),
    (GET_CONFIG + "    pass\n", "", "must return an ExperimentConfig, got NoneType"),
    (GET_CONFIG + "    return ExperimentConfig\n", "", "got type"),
])
def test_a_broken_file_is_reported_with_its_line(text, line, expected, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(text)
    message = refusal(path)
    assert message.startswith(str(path))
    assert line in message and expected in message


def test_a_broken_file_with_a_relative_path_is_reported_with_its_line(write, tmp_path, monkeypatch):
    write("x = 1\nx.y\n", "broken.py")
    monkeypatch.chdir(tmp_path)
    assert refusal("broken.py").startswith("broken.py:2: AttributeError")


@pytest.mark.parametrize(("returned", "message"), [
    ("ExperimentConfig('a', ModelConfig('dense_cnn'), train=TrainConfig(epochs=0))",
     "train.epochs must be at least 1, got 0"),
    ("ExperimentConfig('a', ModelConfig('dense_cnn', filters=[8, 'a']))", "model.filters must be"),
    ("ExperimentConfig('a', 'x')", "model must be a model (an instance of a "),
    ("ExperimentConfig('a', ModelConfig)", "model must be"),
    ("ExperimentConfig('a', ModelConfig('dense_cnn'), train=None)", "train must be"),
])
def test_a_config_that_is_not_valid_names_the_field(returned, message, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(f"{GET_CONFIG}    return {returned}\n")
    assert message in refusal(path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    assert refusal(tmp_path / "none.py") == f"experiment: there is no file {tmp_path}/none.py"
    (tmp_path / "folder.py").mkdir()
    assert "there is no file" in refusal(tmp_path / "folder.py")
    (tmp_path / "binary.py").write_bytes(b"\x00\xff\x00")
    assert refusal(tmp_path / "binary.py").startswith(str(tmp_path / "binary.py"))


@pytest.mark.parametrize("mode", ["replicate", "predict", "export", "config"])
def test_a_file_is_executed_once(mode, write, launch_here, finished_copy, tmp_path, monkeypatch):
    path = write("""
        from pathlib import Path
        from flaxdigits.experiments import load_experiment
        from flaxdigits.studies.replication import Claim, Replication

        with open(Path(__file__).with_name("executed"), "a") as file:
            file.write("x")

        def get_config():
            return load_experiment("mse_cnn")

        def get_replication():
            return Replication("A paper", (Claim("test_accuracy", 0.9, why="It was."),))
    """)
    monkeypatch.chdir(tmp_path)
    extra = {"replicate": ["--collect_only", f"--workdir={tmp_path / 'out'}"],
             "predict": [f"--workdir={finished_copy}", f"--images={path}"],
             "export": [f"--workdir={finished_copy}"], "config": []}[mode]
    launch_here(f"--mode={mode}", f"--experiment={path}", *extra)
    assert (tmp_path / "executed").read_text() == "x"


def test_listing_executes_nothing_and_survives_a_broken_file(write, tmp_path):
    write("'''good: a title.'''\nraise SystemExit(1)\n", "good.py")
    write("x = (\n", "bad.py")
    write("x = 1\n", "silent.py")
    assert list_experiments(tmp_path) == {"bad": "", "good": "good: a title.", "silent": ""}
