"""What is installed: typed, documented, citable, and whole where there is no checkout."""

import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import flaxdigits

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = '''
import flaxdigits
from typing import Any

config: flaxdigits.ExperimentConfig = flaxdigits.experiment("chinese_cnn", "train.epochs=1")
outcome: flaxdigits.Outcome = flaxdigits.train(config, "runs/x", raw_data_dir=".", data="real")
rows: list[dict[str, Any]] = flaxdigits.evaluate("runs/x", "best")
parameters: int = flaxdigits.summary(config).parameters
'''
WRONG = {
    "reportArgumentType": 'flaxdigits.train(config, data="fake")',
    "reportAttributeAccessIssue": "flaxdigits.trian",
    "reportAssignmentType": 'page: int = flaxdigits.report("runs/x")',
    "reportCallIssue": "flaxdigits.prepare()",
}


def check_types(environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable,
         *map(str, arguments)], env=environment | {"PYTHONPATH": str(ROOT)}, cwd=ROOT,
        capture_output=True, text=True, check=False)
    return json.loads(done.stdout)


def test_an_editor_knows_the_types_of_the_calls(environment, tmp_path):
    lines = ASKED.splitlines()
    path = tmp_path / "script.py"
    path.write_text("\n".join([*lines, *WRONG.values()]))
    found = check_types(environment, path)["generalDiagnostics"]
    errors = {one["range"]["start"]["line"]: one["rule"]
              for one in found if one["severity"] == "error"}
    assert errors == dict(enumerate(WRONG, start=len(lines)))


def test_every_public_name_has_a_known_type(environment):
    found = check_types(environment, "--verifytypes", "flaxdigits", "--ignoreexternal")
    symbols = {symbol["name"]: symbol for symbol in found["typeCompleteness"]["symbols"]}
    public = [f"flaxdigits.{name}" for name in flaxdigits.__all__]
    public += [name for name in symbols if name.startswith(
        ("flaxdigits.api.", "flaxdigits.config.", "flaxdigits.training.trackers."))]
    assert len(public) > 80
    assert [name for name in public if not symbols[name]["isTypeKnown"]] == []


@pytest.fixture(scope="module")
def installed(environment, tmp_path_factory):
    """The files of a wheel, built as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(
        ".git", "runs", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", ".venv"))
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder / "source", env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_a_wheel_is_complete(installed, environment, tmp_path):
    code = ("import flaxdigits, json; print(json.dumps([flaxdigits.__file__, "
            "flaxdigits.list_experiments(), flaxdigits.experiment('chinese_cnn').experiment]))")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"PYTHONPATH": str(installed)},
        cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    place, experiments, name = json.loads(done.stdout)
    assert place == str(installed / "flaxdigits" / "__init__.py")
    assert experiments == flaxdigits.list_experiments() and name == "chinese_cnn"
    for file in ("py.typed", "reports/page.html", "built_in/ablations/chinese_cnn.py"):
        assert (installed / "flaxdigits" / file).is_file()
    assert {path.name for path in installed.iterdir()} == {
        "flaxdigits", f"flaxdigits-{PROJECT['version']}.dist-info"}


def test_the_wheel_trains_from_another_folder(installed, environment, idx_folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flaxdigits", "--experiment=mse_cnn",
         "--set=data.dataset=idx_files", f"--set=data.folder={idx_folder}",
         "--set=model.filters=4,4", "--set=train.steps=2", "--workdir=run"],
        env=environment | {"PYTHONPATH": str(installed)}, cwd=tmp_path, capture_output=True,
        text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 2
    (scripts,) = installed.glob("*.dist-info/entry_points.txt")
    assert "flaxdigits = flaxdigits.cli.main:launch" in scripts.read_text()


def test_the_installed_command_has_the_flags_of_launch(launch, environment):
    (script,) = entry_points(group="console_scripts", name="flaxdigits")
    code = ("import sys; sys.argv = ['flaxdigits', '--list']; "
            f"from {script.module} import launch; launch()")
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == launch("--list").stdout


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["message"]
    assert citation["authors"] == [{"name": "The flaxdigits authors"}]
    assert citation["title"] == PROJECT["name"]
    assert str(citation["version"]) == PROJECT["version"] == flaxdigits.__version__
    assert citation["license"] == PROJECT["license"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_an_editable_install_is_found_from_the_folder_above_the_checkout(environment, tmp_path):
    checkout, site = tmp_path / "flaxdigits", tmp_path / "site"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(
        ".git", "runs", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", ".venv"))
    build = f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=checkout, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    code = (f"import site; site.addsitedir({str(site)!r}); import flaxdigits; "
            "print(flaxdigits.list_experiments.__module__)")
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment,
                           capture_output=True, text=True, check=False)
    assert found.stdout == "flaxdigits.experiments\n", found.stderr


def test_a_checkout_that_is_not_installed_runs(environment, tmp_path):
    (tmp_path / "flaxdigits").symlink_to(ROOT / "flaxdigits")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "flaxdigits" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    done = subprocess.run(  # -S leaves out the packages that are installed
        [sys.executable, "-S", "-c",
         "from flaxdigits.training.provenance import versions; print(versions()['flaxdigits'])"],
        env=environment | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, capture_output=True,
        text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "not installed\n"), done.stderr
