"""The files of custom components: copied to the run folder, and executed only if unchanged."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny_run import isolate_registries

import flaxdigits
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.custom_code import changed_definitions

pytest_plugins = ["tiny_run"]
pytestmark = pytest.mark.usefixtures("registries", "compiled_once")

QUIET = Console(quiet=True, markup=False)

EXPERIMENT = '''
"""mine: a custom model and optimizer."""

import dataclasses
from pathlib import Path

import flax.linen as nn
import flaxdigits
import optax
from flaxdigits.components import register
from flaxdigits.config import CheckpointConfig, DataConfig, ExperimentConfig, TrainConfig
from flaxdigits.optimizers import Optimizer
from my_layers import ONE, unused_helper

Path(__file__).with_suffix(".executed").touch()
SIGN = 1.0


@register("sign_descent")
@dataclasses.dataclass(frozen=True)
class SignDescent(Optimizer):
    """Descends by the sign of the gradient."""

    def build(self, learning_rate):
        return optax.chain(optax.scale(SIGN * ONE), optax.scale_by_sign(),
                           optax.scale_by_learning_rate(learning_rate))


@flaxdigits.models.register("wide")
class Wide(nn.Module):
    num_classes: int
    dense: int = 8

    @nn.compact
    def __call__(self, images, training=None):
        hidden = nn.relu(nn.Dense(self.dense)(images.reshape(images.shape[0], -1)))
        return nn.Dense(self.num_classes)(hidden)


def unused():
    return 1


def get_config():
    return ExperimentConfig(
        "mine", Wide.Config(), DataConfig("idx_files", "holdout", folder="IDX"),
        SignDescent(learning_rate=0.01), TrainConfig(batch_size=50, steps=4),
        checkpoint=CheckpointConfig(every_steps=2))
'''

# Modules that the experiment file imports, the second through the first.
MODULES = {
    "my_layers.py": '''
import parts.numbers

ONE = parts.numbers.HALF + 0.5

def unused_helper():
    return 3
''',
    "parts/numbers.py": '''
from pathlib import Path

Path(__file__).with_suffix(".executed").touch()
HALF = 0.5
'''}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, idx_folder):
    """An experiment file `mine.py` with two runs, `paused` and `finished`; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "mine.py"
    path.write_text(EXPERIMENT.replace("IDX", str(idx_folder)))
    (folder / "parts").mkdir()
    for name, text in MODULES.items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        isolate_registries(patch)
        for name, overrides in (("paused", ["train.stop_after=2"]), ("finished", [])):
            config = flaxdigits.experiment(path, *overrides)
            flaxdigits.train(config, folder / name, console=QUIET)
    return folder


@pytest.fixture
def work(trained, tmp_path):
    """A copy of the file and its runs."""
    folder = Path(shutil.copytree(trained, tmp_path / "work"))
    for name in ("paused", "finished"):
        for index, file in enumerate(("mine.py", *MODULES)):
            record(folder / name, index, path=str(folder / file))
    for marker in folder.rglob("*.executed"):
        marker.unlink()
    return folder


def record(run, index=0, **values):
    """Changes what config.json contains about a file."""
    content = json.loads((run / "config.json").read_text())
    content["code"][index] |= values
    (run / "config.json").write_text(json.dumps(content))


def edit(path, *replacements):
    text = path.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


DOCSTRING = ("Descends by the sign of the gradient.", "Descends by its sign.")
CLASS = ("optax.scale_by_sign(),", "optax.scale_by_rms(),")
CONSTANT = ("SIGN = 1.0", "SIGN = 2.0")
UNUSED = ("return 1", "return 2")


def test_a_run_folder_contains_the_files_and_their_digests(trained, finished):
    files = {name: (trained / name).read_bytes() for name in ("mine.py", *MODULES)}
    assert json.loads((trained / "paused" / "config.json").read_text())["code"] == [
        {"copy": name, "path": str(trained / name), "sha256": hashlib.sha256(content).hexdigest()}
        | ({} if name == "mine.py" else {"imported": True})
        for name, content in files.items()]
    code = trained / "paused" / "code"
    assert {str(path.relative_to(code)): path.read_bytes()
            for path in code.rglob("*") if path.is_file()} == files
    assert "code" not in json.loads((finished / "config.json").read_text())
    assert not (finished / "code").exists()


@pytest.mark.parametrize("changes", [[], [DOCSTRING, ("SIGN = 1.0", "SIGN = 1.0  # or -1")]],
                         ids=["unchanged", "comments"])
def test_the_original_is_used_while_its_code_is_the_same(work, changes):
    edit(work / "mine.py", *changes)
    network = flaxdigits.load(work / "finished")
    assert (work / "mine.executed").exists()
    assert network.logits(np.zeros((2, 28, 28), np.uint8)).shape == (2, 10)
    (work / "mine.executed").unlink()
    assert flaxdigits.load(work / "finished").step == 4
    assert not (work / "mine.executed").exists()  # the components are registered already


@pytest.mark.parametrize("reason", [
    "does not exist", "has changed since the run began", "is in the run folder",
    "was started as a script"])
def test_otherwise_nothing_is_executed_and_the_copy_is_named(work, reason):
    run, original = work / "finished", work / "mine.py"
    copy = run / "code" / "mine.py"
    if reason == "does not exist":
        original.unlink()
    elif reason.startswith("has changed"):
        edit(original, UNUSED)  # nothing is known of what was changed: the digest decides
    else:
        record(run, path=None if "script" in reason else str(copy))
    with pytest.raises(FlaxdigitsError) as error:
        flaxdigits.load(run)
    message = str(error.value)
    assert message.startswith(f"{run}: its custom components are defined in ")
    assert reason in message and message.endswith(f"pass experiment={copy}") and "\n" not in message
    assert not list(work.rglob("*.executed"))

    assert flaxdigits.load(run, experiment=copy).step == 4
    assert {path.relative_to(copy.parent) for path in work.rglob("*.executed")} == {
        Path("mine.executed"), Path("parts/numbers.executed")}, "the copies of the modules are used"
    assert not list(copy.parent.rglob("__pycache__"))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("reason", ["does not exist", "has changed since the run began"])
def test_nothing_is_executed_if_an_imported_module_has_changed(work, name, reason):
    run, module = work / "finished", work / name
    if reason == "does not exist":
        module.unlink()
    else:
        edit(module, ("0.5", "0.25"))
    with pytest.raises(FlaxdigitsError) as error:
        flaxdigits.load(run)
    copy = run / "code" / "mine.py"
    assert str(error.value).startswith(
        f"{run}: its custom components import {module}, which {reason}; to execute the copy in the "
        f"run folder instead, pass experiment={copy}")
    assert not list(work.rglob("*.executed"))
    assert flaxdigits.load(run, experiment=copy).step == 4


def test_a_changed_module_is_imported_again_with_the_file_that_imports_it(work):
    for half, rate in (("0.5", 1.0), ("0.25", 0.75)):
        edit(work / "parts/numbers.py", ("HALF = 0.5", f"HALF = {half}"))
        optimizer = flaxdigits.experiment(work / "mine.py").optimizer
        assert rate == sys.modules[type(optimizer).__module__].ONE


@pytest.mark.parametrize("mode", [
    "predict", "export", *(pytest.param(mode, marks=pytest.mark.slow) for mode in (
        "eval", "report"))])
def test_each_mode_works_with_the_copy(work, mode, launch_here):
    run = Path((work / "finished").rename(work / "moved"))
    (work / "mine.py").unlink()
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(work / "image.png")
    command = [f"--mode={mode}", f"--workdir={run}",
               *([f"--images={work / 'image.png'}"] if mode == "predict" else [])]
    refused = launch_here(*command)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    (named,) = [word for word in refused.stderr.split() if word.startswith("experiment=")]
    done = launch_here(*command, f"--{named}")
    assert done.returncode == 0 and "changed" not in done.stderr, done.stderr


def test_export_failure_is_a_one_line_error(work, launch_here):
    edit(work / "mine.py", ("images.shape[0]", "len(images)"))
    done = launch_here("--mode=export", f"--workdir={work / 'finished'}",
                       f"--experiment={work / 'mine.py'}")
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: model wide: cannot be exported for any batch size: ")
    assert "images.shape[0]" in error


def test_components_registered_by_other_code_are_not_taken_for_those_of_the_run(work):
    edit(work / "mine.py", CLASS)
    flaxdigits.experiment(work / "mine.py")
    with pytest.raises(FlaxdigitsError, match=r"mine\.py, which has changed"):
        flaxdigits.load(work / "finished")


def test_a_changed_file_that_is_passed_is_used_with_a_note(work, caplog):
    edit(work / "mine.py", CLASS)
    assert flaxdigits.load(work / "finished", experiment=work / "mine.py").step == 4
    assert "SignDescent in mine.py has changed since the run began" in caplog.text


# --- resuming -------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes", [
    None, [DOCSTRING, UNUSED, ("def unused", "def added():\n    pass\n\n\ndef unused")],
], ids=["without the file", "changed elsewhere"])
def test_a_run_is_resumed_if_the_code_it_uses_is_the_same(work, changes, launch_here):
    command = [f"--workdir={work / 'paused'}"]
    if changes is not None:
        edit(work / "mine.py", *changes)
        command.append(f"--experiment={work / 'mine.py'}")
    done = launch_here(*command)
    assert done.returncode == 0 and "complete at step 4" in done.stdout, done.stderr
    results = [json.loads((work / name / "result.json").read_text())
               for name in ("paused", "finished")]
    assert results[0]["test_loss"] == results[1]["test_loss"]


def test_a_run_is_not_resumed_with_other_code_but_with_the_copy(work, launch_here):
    run, copy = work / "paused", work / "paused" / "code" / "mine.py"
    edit(work / "mine.py", CLASS, CONSTANT)
    refused = launch_here(f"--workdir={run}", f"--experiment={work / 'mine.py'}")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "SIGN, SignDescent in mine.py have changed since the run began" in refused.stderr
    assert f" experiment={copy}," in refused.stderr
    done = launch_here(f"--workdir={run}", f"--experiment={copy}")
    assert done.returncode == 0 and "complete at step 4" in done.stdout, done.stderr


def test_a_run_is_not_resumed_with_another_module_but_with_another_unused_part_of_it(
    work, launch_here
):
    run, module = work / "paused", work / "my_layers.py"
    command = f"--workdir={run}", f"--experiment={work / 'mine.py'}"
    edit(module, ("+ 0.5", "+ 0.25"))
    refused = launch_here(*command)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "ONE in my_layers.py has changed since the run began" in refused.stderr
    edit(module, ("+ 0.25", "+ 0.5  # two halves"), ("import parts", "import flax\nimport parts"))
    done = launch_here(*command)
    assert done.returncode == 0 and "complete at step 4" in done.stdout, done.stderr


def test_a_run_of_an_earlier_version_has_no_record_of_the_modules(work):
    for name in ("paused", "finished"):
        content = json.loads((work / name / "config.json").read_text())
        content["code"] = content["code"][:1]
        (work / name / "config.json").write_text(json.dumps(content))
    edit(work / "my_layers.py", ("+ 0.5", "+ 0.25"))
    assert flaxdigits.load(work / "finished").step == 4
    config = flaxdigits.experiment(work / "mine.py")
    assert flaxdigits.train(config, work / "paused", console=QUIET).step == 4


def test_a_change_is_accepted_by_replacing_the_copy(work, launch_here):
    run, before = work / "paused", json.loads((work / "paused" / "config.json").read_text())
    edit(work / "mine.py", CONSTANT)
    shutil.copy(work / "mine.py", run / "code" / "mine.py")
    done = launch_here(f"--workdir={run}", f"--experiment={work / 'mine.py'}")
    assert done.returncode == 0, done.stderr
    file, *_ = json.loads((run / "config.json").read_text())["code"]
    assert file["earlier"] == [before["code"][0]["sha256"]]
    assert file["sha256"] == hashlib.sha256((work / "mine.py").read_bytes()).hexdigest()
    assert flaxdigits.load(run).step == 4


@pytest.mark.parametrize("values", [
    {"copy": "../mine.py"}, {"copy": "/mine.py"}, {"copy": "a/../../mine.py"},
    {"copy": "./mine.py"}, {"copy": 3}, {"sha256": None}, {"path": 3}, {"imported": 1}])
def test_a_damaged_record_is_reported(work, values):
    record(work / "paused", **values)
    with pytest.raises(FlaxdigitsError, match=r"config\.json: code must be a list of files"):
        flaxdigits.load(work / "paused")


# --- which definitions have changed ---------------------------------------------------------------

@pytest.mark.parametrize(("new", "changed"), [
    ("import a\nx = 1\ndef f(): return x + a.b\nclass C: y = f\nz = 3\n", []),
    ("import a\nx = 2\ndef f(): return x + a.b\nclass C: y = f\n", ["x"]),
    ("import b as a\nx = 1\ndef f(): return x + a.b\nclass C: y = f\n", ["a"]),
    ("import a\nx = 1\nclass C: y = f\n", ["f"]),
    ("import a\nx = 1\ndef f(): return x + a.b\nclass C:\n  'Doc.'\n  y = f  # comment\n", []),
    ("import a\nx = 1\ndef f(): return x + a.b\nclass C: y = f\nx *= 2\n",
     ["a statement at the top level"]),
    ("import a\nx = 1\ndef f(): return x + a.b\nclass C: y = f\nfrom b import *\n",
     ["a statement at the top level"]),
    ("import a\nx = 1\nx = 2\ndef f(): return x - a.b\nclass C: y = f\n", ["x", "f"]),
    ("x = (", ["the file"]),
])
def test_definitions_are_followed(new, changed):
    old = "import a\nx = 1\ndef f(): return x + a.b\nclass C: y = f\nz = 2\n"
    assert changed_definitions(old.encode(), new.encode(), {"C"}) == changed


def test_statements_that_bind_no_name_count():
    old, new = b"class C: pass\na.b()\n", b"class C: pass\na.c()\n"
    assert changed_definitions(old, new, {"C"}) == ["a statement at the top level"]
    assert changed_definitions(None, new, {"C"}) == ["the file"]
    shadowed = b"class C: x = abs(1)\ndef abs(x): return x\n"
    assert changed_definitions(b"class C: x = abs(1)\n", shadowed, {"C"}) == ["abs"]
    entry = b"def get_config(): return 1\nclass C: pass"
    assert changed_definitions(entry, entry.replace(b"1", b"2"), {"C"}) == []
