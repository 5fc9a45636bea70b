"""Makes the folder that a GPU machine without network needs: `python tests/gpu_folder.py FOLDER`.

It holds this checkout's committed files (`source`), the wheels of the dependencies except those in
MACHINE (`wheels`), the raw data (`data`) and `run.sh`, in less than 60 MB. The raw data are those
in $FLAXDIGITS_RAW_DATA. The dependencies are those that are installed here, for Python 3.12 on
Linux and x86-64. docs/devices.md says how the folder is used.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 60_000_000  # bytes
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# What the machine must have: large, or specific to its CUDA.
MACHINE = {"jax", "jaxlib", "matplotlib", "numpy", "pillow", "protobuf", "pyarrow", "scipy",
           "tensorstore"}
TESTS = ("pytest", "pytest-xdist")

RUN = """\
#!/usr/bin/env bash
# Installs the wheels that are missing, then checks and times the GPU:
#   bash run.sh                        both of the following, the benchmark with --peers
#   bash run.sh tests [ARGUMENTS]      pytest -m gpu
#   bash run.sh benchmark [ARGUMENTS]  python launch.py --mode=benchmark --suite=gpu
# The outputs are in the folder results. PYTHON names another Python than python3.
set -uo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
mkdir -p results
"$python" -m pip install --quiet --no-index --find-links=wheels -r requirements.txt || exit 1
export FLAXDIGITS_RAW_DATA="$PWD/data" TFDS_DATA_DIR="$PWD/prepared" PYTHONPATH="$PWD/source"
cd source

tests() {
  "$python" -m pytest -m gpu tests/test_gpu.py "$@" 2>&1 | tee -a ../results/tests.txt
}

benchmark() {
  "$python" launch.py --mode=benchmark --suite=gpu \\
    --workdir="../results/benchmark-$(date +%H%M%S)" "$@" 2>&1 | tee -a ../results/benchmark.txt
}

case "${1:-}" in
  "") tests; first=$?; benchmark --peers; exit $((first | $?)) ;;
  tests | benchmark) "$@" ;;
  *) echo "usage: bash run.sh [tests|benchmark] [ARGUMENTS]" >&2; exit 2 ;;
esac
"""


def dependencies(names: Iterable[str]) -> dict[str, str]:
    """Returns the versions of installed packages and of what they need, without MACHINE."""
    environment = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    found: dict[str, str] = {}
    waiting = [(Requirement(name), "") for name in names]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate(environment | {"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name in MACHINE or (name in found and not requirement.extras):
            continue
        found[name] = importlib.metadata.version(name)
        waiting += [(Requirement(needed), extra)
                    for extra in ("", *requirement.extras)
                    for needed in importlib.metadata.requires(name) or ()]
    return found


def project_requirements() -> list[str]:
    """Returns what pyproject.toml requires, and the packages that run the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *TESTS]


def download(versions: dict[str, str], folder: Path) -> None:
    """Downloads a wheel of each package, or builds it where there is only a source distribution."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    for name, version in versions.items():
        found = subprocess.run(
            [*pip, "download", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}",
             *platforms, f"--dest={folder}", f"{name}=={version}"], capture_output=True, text=True,
            check=False)
        if found.returncode:
            subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={folder}",
                            f"{name}=={version}"], check=True)


def main(folder: Path) -> int:
    """Makes the folder; returns the exit status."""
    raw = os.environ.get("FLAXDIGITS_RAW_DATA")
    if raw is None:
        print("error: FLAXDIGITS_RAW_DATA names no folder with the raw data", file=sys.stderr)
        return 2
    if folder.exists():
        print(f"error: {folder} exists", file=sys.stderr)
        return 2
    folder.mkdir(parents=True)
    requirements = project_requirements()
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    (folder / "run.sh").write_text(RUN)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder / "source", filter="data")
    shutil.copytree(raw, folder / "data")
    download(dependencies(requirements), folder / "wheels")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")
    if size > LIMIT:
        print(f"error: that is more than {LIMIT / 1e6:.0f} MB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
