"""The resolved config of every built-in experiment, so that a changed default shows in a review."""

import json
from pathlib import Path

import pytest

from flaxdigits.config import to_dict
from flaxdigits.experiments import list_experiments, load_experiment

pytestmark = pytest.mark.quick

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", list_experiments())
def test_resolved_config_is_as_committed(name):
    path = GOLDEN / f"{name}.json"
    committed = json.loads(path.read_text()) if path.exists() else None
    assert to_dict(load_experiment(name)) == committed, (
        f"{name} resolves to another config than {path.name} has; if that is meant, renew it: "
        f"python launch.py --mode=config --experiment={name} > tests/golden/{name}.json")


def test_every_golden_file_has_its_experiment():
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == sorted(list_experiments())
