"""The workflow on GitHub is valid, and its commands are those of the repository."""

import re
import shlex
import tomllib

import pytest
import yaml
from conftest import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
STEPS = [(job, step) for job, values in WORKFLOW["jobs"].items() for step in values["steps"]]


def test_it_runs_for_pushes_and_pull_requests():
    assert {"push", "pull_request"} <= set(WORKFLOW[True])  # "on" is a boolean in YAML 1.1


def test_every_job_checks_out_and_installs():
    for job in WORKFLOW["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"]
        uses = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
        assert uses[:2] == ["actions/checkout", "actions/setup-python"]
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_it_tests_every_python_and_the_lowest_and_newest_versions():
    entries = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert {entry["python"] for entry in entries} == {"3.11", "3.12", "3.13"}
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert {"python": lowest, "versions": "lowest"} in entries
    script = (ROOT / ".ci" / "versions").read_text()
    for entry in entries:
        assert f"\n  {entry['versions']})" in script


@pytest.mark.parametrize("command", [step["run"] for _, step in STEPS if "run" in step])
def test_its_commands_name_what_is_there(command):
    markers = {line.partition(":")[0]
               for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    words = shlex.split(command)
    for word in words:
        if re.match(r"(tests|docs|\.ci)(/|$)", word):
            assert (ROOT / word).exists(), word
    for extras in re.findall(r"\.\[([\w,]+)\]", command):
        assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    if "-m" in words:
        named = set(re.findall(r"\w+", words[words.index("-m") + 1])) - {"and", "not", "or"}
        assert named <= markers
    for name in re.findall(r"\w{8,}", words[words.index("-k") + 1] if "-k" in words else ""):
        assert name in (ROOT / "tests" / "test_packaging.py").read_text()


def test_the_documentation_is_built_as_contributors_build_it():
    commands = [step.get("run") for job, step in STEPS if job == "docs"]
    (build,) = re.findall("^sphinx-build .*$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert build in commands
