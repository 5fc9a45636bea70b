"""What the tests share: the real data, a small data set in idx files, launch.py as it is run."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before anything imports JAX
os.environ["FLAXDIGITS_PROGRESS"] = "off"  # its lines depend on the time that things take

import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option of the tests that are marked `gpu`."""
    parser.addoption("--device", choices=("gpu", "cpu"), default="gpu",
                     help="where tests marked gpu run; on the cpu, at reduced size")


@pytest.fixture(scope="session")
def raw_data_dir() -> Path:
    """The folder of the real data's raw files."""
    if not os.environ.get("FLAXDIGITS_RAW_DATA"):
        pytest.skip("FLAXDIGITS_RAW_DATA names no folder with the real data")
    return Path(os.environ["FLAXDIGITS_RAW_DATA"])


@pytest.fixture(scope="session")
def idx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 training and 70 test images of 28x28, ten classes of bright bars in noise."""
    folder = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 70)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = rng.integers(0, 80, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 2:2 * label + 6, 5:20] += 150  # noise stays: no ties in pooling
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 2051, count, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 2049, count) + labels.tobytes())
    return folder


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiles equal programs of this process once, whichever tests and files they are of."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of subprocesses: one device, a compilation cache, data of their own.

    The data are prepared once for all of pytest's workers, under the lock of their builders; what
    JAX compiles is not, as it does not write the files of its cache at a stroke.
    """
    shared, base = tmp_path_factory.mktemp("shared"), tmp_path_factory.getbasetemp()
    prepared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prepared"
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("FLAXDIGITS_", "JAX_", "XLA_", "TFDS_"))}
    return kept | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(shared / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "TFDS_DATA_DIR": str(prepared),
        "FLAXDIGITS_PROGRESS": "off",
        "COLUMNS": "200",
    }


@pytest.fixture(scope="session")
def launch(
    environment: dict[str, str],
) -> Callable[..., subprocess.CompletedProcess]:
    """Runs `launch.py` with the given arguments and waits; `env` adds to its environment."""
    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)], cwd=cwd,
            env=environment | (env or {}), capture_output=True, text=True, timeout=timeout,
            check=False, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture(scope="session")
def start(environment: dict[str, str]) -> Callable[..., subprocess.Popen]:
    """Starts `launch.py` with the given arguments, its output in one pipe, and does not wait."""
    def run(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)], cwd=ROOT,
            env=environment | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes an experiment file and returns its path."""
    def write_file(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write_file
