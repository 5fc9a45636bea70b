"""The documentation is built as a site, without warnings."""

import dataclasses
import re
import subprocess
import sys

import pytest
from conftest import ROOT

import flaxdigits
from flaxdigits.components import Component


@pytest.fixture(scope="module")
def site(environment, tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    completed = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", folder / "doctrees",
         ROOT / "docs", folder / "html"],
        env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert completed.returncode == 0 and completed.stderr == "", completed.stderr
    return folder / "html"


@pytest.mark.slow
def test_every_page_is_in_the_contents(site):
    index = (site / "index.html").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        if path.stem != "index":
            assert f'href="{path.stem}.html"' in index, path


@pytest.mark.slow
def test_every_public_name_has_an_entry(site):
    entries = "".join(path.read_text() for path in (site / "api").glob("*.html"))
    names = [f"flaxdigits.{name}" for name in flaxdigits.__all__
             if name not in ("ExperimentConfig", "Tracker")]
    names += ["flaxdigits.training.trackers.Tracker", "flaxdigits.studies.study.Study"]
    for kind in Component.__subclasses__():
        names += [f"{cls.__module__}.{cls.__name__}" for cls in kind.registered.values()
                  if cls.__module__.startswith("flaxdigits.") and kind.kind != "model"]
    assert [name for name in names if f'id="{name}"' not in entries] == []
    for section in dataclasses.fields(flaxdigits.ExperimentConfig):
        assert section.name in entries


@pytest.mark.slow
def test_docstrings_are_rendered(site):
    for path in (site / "api").glob("*.html"):
        text = re.sub(r"<[^>]+>", "", path.read_text())
        assert str(ROOT) not in text
        for raw in ("Args:", "```", ":param"):
            assert raw not in text, f"{path.name} shows {raw} as it is written"


@pytest.mark.slow
def test_bounds_of_fields_are_shown(site):
    text = re.sub(r"<[^>]+>", "", (site / "api" / "optimizers.html").read_text())
    assert ("Bounds: beta1 at least 0 and below 1, beta2 at least 0 and below 1, epsilon above 0."
            in " ".join(text.split()))
