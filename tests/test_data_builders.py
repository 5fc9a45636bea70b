"""The tensorflow-datasets builders, the copies they prepare, and where `load_dataset` looks."""

import dataclasses
import errno
import fcntl
import logging
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tiny_digits import COUNT, TRAIN, TinyDigits

from flaxdigits.config import DataConfig
from flaxdigits.data import raw_mnist
from flaxdigits.data.builders import BUILDERS
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.data.examples import Examples
from flaxdigits.data.fetch import FetchError
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import Progress


@pytest.fixture(scope="module")
def real_data_dir(raw_data_dir, tmp_path_factory) -> Path:
    """Both data sets, prepared from the real files."""
    data_dir = tmp_path_factory.mktemp("prepared")
    for name in BUILDERS:
        load_dataset(DataConfig(dataset=name), DataLocations(raw_data_dir, data_dir, "real"))
    return data_dir


@pytest.fixture
def tiny_in_place_of_mnist(monkeypatch):
    """`load_dataset` with MNIST's own raw files and addresses, but little to draw."""
    class Tiny(TinyDigits, skip_registration=True):
        name = "tiny_in_place_of_mnist"
        read_raw = staticmethod(raw_mnist.read_mnist)
        fetch_raw = staticmethod(raw_mnist.fetch_mnist)

    monkeypatch.setitem(BUILDERS, "mnist", Tiny)


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens on "discard"
    monkeypatch.delenv("no_proxy", raising=False)


def assert_tiny(examples: Examples) -> None:
    for field in dataclasses.fields(Examples):
        np.testing.assert_array_equal(
            getattr(examples, field.name), getattr(TinyDigits.draw(0), field.name))


def python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def prepare_tiny(data_dir: Path, first: str = "") -> subprocess.Popen:
    return python(
        f"import sys, tiny_digits\n{first}\n"
        "builder = tiny_digits.TinyDigits(config='drawn', data_dir=sys.argv[1])\n"
        "builder.download_and_prepare()\n"
        "builder.read()\n",
        data_dir)


def test_without_locks_nothing_of_others_is_cleared(tmp_path, monkeypatch):
    def refuse(*given):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    builder = TinyDigits(config="drawn", data_dir=tmp_path)
    live = builder.data_path.parent / "incomplete.ABC_1.0.0"
    live.mkdir(parents=True)
    builder.download_and_prepare()
    assert_tiny(builder.read())
    assert live.is_dir()


def test_prepared_examples_are_read_in_order(tmp_path, capfd):
    builder = TinyDigits(config="drawn", data_dir=tmp_path)
    builder.download_and_prepare()
    assert capfd.readouterr() == ("", "")
    assert_tiny(builder.read())
    assert_tiny(TinyDigits(config="drawn", data_dir=tmp_path).read())

    train, test = (builder.as_data_source(part) for part in ("train", "test"))
    assert (len(train), len(test)) == (TRAIN, COUNT - TRAIN)
    row = test[5]
    assert (row["index"], row["label"], row["writer"], row["sample"]) == (1_005, 1, 3, 105)
    np.testing.assert_array_equal(row["image"][..., 0], TinyDigits.draw(0).images[1_005])
    assert builder.info.disable_shuffling


def test_a_prepared_copy_is_reused(tmp_path, monkeypatch):
    TinyDigits(config="drawn", data_dir=tmp_path).download_and_prepare()
    monkeypatch.delattr(TinyDigits, "draw")
    again = TinyDigits(config="drawn", data_dir=tmp_path)
    again.download_and_prepare()
    assert len(again.read().labels) == COUNT


def test_prepared_by_another_since_it_was_opened(tmp_path):
    late = TinyDigits(config="drawn", data_dir=tmp_path)
    TinyDigits(config="drawn", data_dir=tmp_path).download_and_prepare()
    late.download_and_prepare()
    assert_tiny(late.read())


def test_data_are_prepared_after_an_earlier_process_was_killed(tmp_path):
    process = prepare_tiny(tmp_path, first="tiny_digits.COUNT = 500_000  # half a minute's work")
    incomplete = "tiny_digits/drawn/incomplete.*"
    while process.poll() is None and not list(tmp_path.glob(f"{incomplete}/*array_record*")):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert list(tmp_path.glob(incomplete)), "killed too late to tell anything"
    builder = TinyDigits(config="drawn", data_dir=tmp_path)
    assert not builder.is_prepared()

    builder.download_and_prepare()
    assert_tiny(builder.read())
    assert not list(tmp_path.glob(incomplete))


def test_two_processes_prepare_the_same_data_at_once(tmp_path):
    processes = [prepare_tiny(tmp_path, first="tiny_digits.COUNT = 20_000") for _ in range(2)]
    for process in processes:
        assert process.communicate() == ("", "")
        assert process.returncode == 0
    builder = TinyDigits(config="drawn", data_dir=tmp_path)
    assert len(builder.read().labels) == 20_000


def test_a_full_disk(tmp_path):
    # A limit on the size of files stands in: to the writer it is the same error of write().
    process = prepare_tiny(tmp_path, first="""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))""")
    _, errors = process.communicate()
    last = errors.strip().splitlines()[-1]
    assert last.startswith("flaxdigits.errors.FlaxdigitsError")
    assert str(tmp_path) in last and "data_dir" in last
    assert not TinyDigits(config="drawn", data_dir=tmp_path).is_prepared()
    assert not list(tmp_path.glob("tiny_digits/drawn/incomplete.*"))


def test_a_data_dir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FlaxdigitsError, match="cannot be written there") as error:
        TinyDigits(config="drawn", data_dir=tmp_path / "file").download_and_prepare()
    assert "\n" not in str(error.value)


def test_downloads_go_to_the_data_dir(tmp_path):
    class Fetched(TinyDigits, skip_registration=True):
        name = "fetched"

        @staticmethod
        def fetch_raw(folder: Path, progress: Progress) -> None:
            folder.mkdir(parents=True)
            np.save(folder / "raw.npy", TinyDigits.draw(0).images)

        @staticmethod
        def read_raw(folder: Path) -> Examples:
            return dataclasses.replace(TinyDigits.draw(0), images=np.load(folder / "raw.npy"))

    builder = Fetched(data_dir=tmp_path)
    builder.download_and_prepare()
    assert_tiny(builder.read())
    assert (tmp_path / "downloads" / "flaxdigits" / "raw.npy").exists()


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


RECORDS = "tiny_digits-train.array_record-00000-of-00001"
DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "a FIFO": make_fifo,
    "a folder": make_folder,
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "a list": lambda path: path.write_text("[]"),
    "a number of 10,000 digits": lambda path: path.write_text("1" * 10_000),
    "10,000 brackets": lambda path: path.write_text("[" * 10_000),
    "no metadata": lambda path: path.write_text("{}"),
}


@pytest.mark.parametrize("name", ["dataset_info.json", "metadata.json", RECORDS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_copy_is_named(tmp_path, name, damage):
    builder = TinyDigits(config="drawn", data_dir=tmp_path)
    builder.download_and_prepare()
    folder = Path(builder.data_dir)
    DAMAGES[damage](folder / name)
    with pytest.raises(FlaxdigitsError) as error:
        prepared_tiny(tmp_path)
    assert str(error.value) == (
        f"{folder / name}: the prepared copy is damaged; delete the folder {folder} and run the "
        "command again to prepare it again")


def prepared_tiny(data_dir: Path) -> Examples:
    builder = TinyDigits(config="drawn", data_dir=data_dir)
    builder.download_and_prepare()
    return builder.read()


@pytest.mark.parametrize("damage", ["records", "fingerprint", "empty folder", "a file"])
def test_a_damaged_copy_is_noticed(tmp_path, damage):
    builder = TinyDigits(config="drawn", data_dir=tmp_path)
    builder.download_and_prepare()
    folder = Path(builder.data_dir)
    if damage == "records":
        flip(folder / RECORDS)
    elif damage == "fingerprint":
        (folder / "metadata.json").write_text('{"fingerprint": "0"}')
    else:
        shutil.rmtree(folder)
        folder.mkdir() if damage == "empty folder" else folder.write_bytes(b"")
    with pytest.raises(FlaxdigitsError, match="prepared copy is damaged") as error:
        prepared_tiny(tmp_path)
    assert f"delete the folder {folder} and run" in str(error.value)


def test_a_fifo_in_place_of_the_lock_does_not_hang(tmp_path):
    folder = tmp_path / "tiny_digits" / "drawn"
    folder.mkdir(parents=True)
    os.mkfifo(folder / ".lock")
    assert_tiny(prepared_tiny(tmp_path))


def test_builders_pickle_with_their_raw_folder(tmp_path):
    builder = pickle.loads(pickle.dumps(BUILDERS["mnist"](data_dir=tmp_path, raw_data_dir="raw")))
    with pytest.raises(FlaxdigitsError, match=r"^raw: contains neither train-images"):
        builder.download_and_prepare()


@pytest.mark.parametrize("imports", [
    "import flaxdigits.data, tensorflow_datasets.image_classification.mnist",
    "import tensorflow_datasets.image_classification.mnist, flaxdigits.data",
])
def test_registered_beside_tensorflow_datasets_own(tmp_path, imports):
    process = python(f"""
        {imports}
        import sys
        import tensorflow_datasets as tfds
        for name in ("flaxdigits_mnist", "flaxdigits_chinese_mnist/drawn", "mnist"):
            print(tfds.builder(name, data_dir=sys.argv[1]).info.full_name)
        assert "tensorflow" not in sys.modules
        """, tmp_path)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output.split() == [
        "flaxdigits_mnist/real/1.0.0", "flaxdigits_chinese_mnist/drawn/1.0.0", "mnist/3.0.1"]


def test_real_mnist(real_data_dir):
    mnist = load_dataset(DataConfig(), DataLocations(data_dir=real_data_dir))
    assert mnist.images.shape == (70_000, 28, 28, 1)
    assert (mnist.name, mnist.source, mnist.official_train) == ("mnist", "real", 60_000)
    assert mnist.class_names == tuple("0123456789")
    assert mnist.fingerprint == (
        "3c612e115f926da3b5e848dccf8aa943a1759ff6bbc19e470b04b582225c034c")
    source = tfds.data_source("flaxdigits_mnist", split="test", data_dir=real_data_dir)
    assert len(source) == 10_000 and source[0]["index"] == 60_000


def test_real_chinese_mnist(real_data_dir):
    chinese = load_dataset(
        DataConfig(dataset="chinese_mnist"), DataLocations(data_dir=real_data_dir))
    assert chinese.images.shape == (15_000, 64, 64, 1)
    assert (chinese.source, chinese.official_train) == ("real", None)
    assert "".join(chinese.class_names) == "零一二三四五六七八九十百千万亿"
    assert (chinese.labels[0], chinese.writers[1], chinese.samples[1]) == (9, 1, 10)
    assert chinese.fingerprint == (
        "cbda8c7e1b055cfb3ca91a20663e130e51e4ed1ae81f54fc33905dedf0a1c573")


def test_auto_takes_a_prepared_copy_before_anything_else(real_data_dir, tmp_path):
    locations = DataLocations(tmp_path / "nowhere", real_data_dir, "auto")
    assert load_dataset(DataConfig(), locations).source == "real"


@pytest.mark.parametrize("source", ["auto", "real"])
def test_a_raw_folder_that_lacks_the_files_is_an_error(tiny_in_place_of_mnist, tmp_path, source):
    with pytest.raises(FlaxdigitsError, match=r"contains neither train-images-idx3-ubyte\.gz nor"):
        load_dataset(DataConfig(), DataLocations(tmp_path, tmp_path, source))


def test_auto_without_files_or_network_uses_synthetic_data_with_a_notice(
    tiny_in_place_of_mnist, no_network, tmp_path, caplog
):
    with caplog.at_level(logging.WARNING, "flaxdigits"):
        data = load_dataset(DataConfig(), DataLocations(data_dir=tmp_path))
    assert data.source == "drawn" and len(data.labels) == COUNT
    (record,) = caplog.records
    assert "SYNTHETIC" in record.message and "\n" not in record.message
    assert str(tmp_path) in record.message and "refused" in record.message


def test_real_refuses_synthetic_data(tiny_in_place_of_mnist, no_network, tmp_path):
    load_dataset(DataConfig(), DataLocations(data_dir=tmp_path, source="drawn"))
    with pytest.raises(FlaxdigitsError, match="no real data: no prepared copy in") as error:
        load_dataset(DataConfig(), DataLocations(data_dir=tmp_path, source="real"))
    assert not isinstance(error.value, FetchError) and "\n" not in str(error.value)


def test_synthetic_data_need_no_files(tiny_in_place_of_mnist, tmp_path, caplog):
    data = load_dataset(
        DataConfig(), DataLocations(tmp_path / "nowhere", tmp_path, source="drawn"))
    assert data.source == "drawn" and not caplog.records
