"""What launch.py sets before JAX starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flaxdigits.cli import process

SCRIPT = """
import json, os, sys
from flaxdigits.cli.process import configure_process
configure_process()
names = ("GLIBC_TUNABLES", "JAX_COMPILATION_CACHE_DIR",
         "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
print(json.dumps({"words": sys.argv[1:], **{name: os.environ.get(name) for name in names}}))
"""


@pytest.fixture
def settings(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(*words: str, **env: str) -> dict:
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("JAX_", "GLIBC_"))}
        found = subprocess.run(
            [sys.executable, str(script), *words], capture_output=True, text=True, check=True,
            env=kept | {"XDG_CACHE_HOME": str(tmp_path / "cache"),
                        "PYTHONPATH": str(Path(__file__).parent.parent)} | env)
        return json.loads(found.stdout)

    return run


def test_compiled_programs_are_kept_in_the_users_cache_small_ones_too(settings, tmp_path):
    found = settings("--set", "a=b c")
    assert found["words"] == ["--set", "a=b c"]  # also if the program was executed again
    folder = Path(found["JAX_COMPILATION_CACHE_DIR"])
    assert folder.parent == tmp_path / "cache" / "flaxdigits" / "compiled"
    assert found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


@pytest.mark.parametrize("before, after", [
    ("", "glibc.malloc.hugetlb=1"),
    ("glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
    ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
])
def test_huge_pages_are_asked_for_unless_the_user_has_decided(settings, before, after):
    if not process._needs_madvise():  # then nothing is asked
        after = before
    assert (settings(GLIBC_TUNABLES=before)["GLIBC_TUNABLES"] or "") == after


def test_user_settings_are_not_overwritten(settings):
    assert settings(JAX_COMPILATION_CACHE_DIR="/x")["JAX_COMPILATION_CACHE_DIR"] == "/x"

