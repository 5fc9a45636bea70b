"""The names of the tests, which pytest's workers compare before the first test runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def collect(hash_seed: str, temporary: Path) -> list[str]:
    """The ids of all tests, as another process collects them."""
    temporary.mkdir()
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "TMPDIR": str(temporary)}
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-m", "",
         "-p", "no:cacheprovider", str(Path(__file__).parent)],
        env=environment, capture_output=True, text=True, check=True)
    return [line for line in process.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_ids_do_not_depend_on_time_hash_seed_or_temporary_folder(tmp_path):
    first = collect("1", tmp_path / "first")  # takes seconds, so that the second one is later
    assert len(first) > 1_000
    assert collect("2", tmp_path / "second") == first
