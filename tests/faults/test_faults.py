"""The short form of `python tests/faults`: every kind of fault, a few times."""

import os
from collections.abc import Iterator

import pytest
from kinds import all_cases
from lab import Case, Lab

CASES = all_cases("short")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One folder for all of pytest's workers, which share the uninterrupted runs."""
    base = tmp_path_factory.getbasetemp()
    lab = Lab((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "faults")
    yield lab
    lab.close()


@pytest.mark.faults
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_nothing_wrong_no_traceback_no_hang(case: Case, lab: Lab) -> None:
    trials = list(case.run(lab, seed=0))
    faults = [f"{trial.name}: {trial.fault}" for trial in trials if trial.fault]
    assert not faults, "\n".join(faults)
    skipped = [trial.skipped for trial in trials if trial.skipped]
    if skipped and len(skipped) == len(trials):
        pytest.skip(skipped[0])
    assert trials
