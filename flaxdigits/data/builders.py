"""The two tensorflow-datasets builders, `flaxdigits_mnist` and `flaxdigits_chinese_mnist`.

Each builder has two configs: `real` (the default) and `drawn` (synthetic data). The builders
prepare ArrayRecord files in the order of the raw files, without TensorFlow.
"""

import contextlib
import fcntl
import functools
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from flaxdigits.data import raw_chinese_mnist, raw_mnist
from flaxdigits.data.examples import Examples, fingerprint
from flaxdigits.data.files import open_regular
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress

DRAWN_SEED = 0
# The path of a prepared copy contains the version: increase it when the synthetic data change.
DRAWN_VERSION = "1.0.0"

_ROWS_AT_ONCE = 4096
_METADATA = ("dataset_info.json", "features.json", "metadata.json")  # files of a prepared copy


class CheckedInfo(tfds.core.DatasetInfo):
    """A DatasetInfo that reports a damaged prepared copy in one line that names the file."""

    def read_from_directory(self, dataset_info_dir: str | os.PathLike[str]) -> None:
        """Reads the metadata of a prepared copy.

        Raises:
          FlaxdigitsError: if a file is missing, damaged or not a regular file.
        """
        folder = Path(dataset_info_dir)
        _check_files(folder)
        try:
            super().read_from_directory(folder)
        except Exception as error:  # of several undocumented types
            raise _damage_error(folder / "dataset_info.json", folder) from error


class DigitsBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Base class of both builders: prepares a data set from its raw files or from synthetic data.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="real", description="The published images."),
        tfds.core.BuilderConfig(
            name="drawn", version=DRAWN_VERSION, description="Synthetic images."),
    ]

    # Set by each builder.
    class_names: tuple[str, ...]
    image_size: tuple[int, int]  # height, width
    official_train: int | None  # number of training examples; None: no official test part
    has_writers: bool
    read_raw: Callable[[Path], Examples]  # reads the folder of the raw files
    fetch_raw: Callable[..., None]  # downloads to the folder of the raw files
    draw: Callable[..., Examples]  # generates synthetic data from a seed

    progress: Progress = NO_PROGRESS  # is notified of downloading and generating

    def __init__(self, *, raw_data_dir: Path | None = None, **kwargs: Any) -> None:
        """Opens the prepared copy if there is one; `download_and_prepare` creates it.

        Args:
          raw_data_dir: the folder of the raw files; None to download them.
          **kwargs: the arguments of every tensorflow-datasets builder: data_dir, config, version.
        """
        self._raw_data_dir = raw_data_dir
        super().__init__(**kwargs)
        self._original_state["raw_data_dir"] = raw_data_dir  # for pickling

    def is_prepared(self) -> bool:
        """Returns whether there is a complete prepared copy; incomplete ones have other names."""
        return self.data_path.exists()

    # The methods of tensorflow-datasets are wrapped, and its protobuf class is created at run time;
    # their types are unknown.
    def download_and_prepare(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, *, file_format: str = "array_record", **kwargs: Any
    ) -> None:
        """Prepares the data set unless it is prepared, in one process at a time.

        If the process is killed, the incomplete folder is not used as a prepared copy.

        Args:
          file_format: the format of the files; `read` requires ArrayRecord.
          **kwargs: further arguments of the method of the base class, which then decides whether to
            prepare the data set again.

        Raises:
          FlaxdigitsError: if the raw files are missing or damaged, or `data_dir` cannot be written.
          FetchError: if the raw files had to be downloaded, and the download failed.
        """
        if kwargs or not self.is_prepared():
            try:
                with _locked(Path(self.data_path.parent)):
                    super().download_and_prepare(file_format=file_format, **kwargs)
            except (OSError, RuntimeError) as error:  # RuntimeError: ArrayRecord on a full disk
                raise FlaxdigitsError(
                    f"{self.data_dir_root}: the prepared data set cannot be written there "
                    f"({getattr(error, 'strerror', None) or error}); free space or choose another "
                    "data_dir") from error
        if not self.info.initialized:  # another process prepared it since this builder was opened
            self.info.set_file_format(file_format, override=True)
            self.info.read_from_directory(self.data_dir)

    def read(self) -> Examples:
        """Returns all examples in the order of the raw files, the training part first.

        Raises:
          FlaxdigitsError: if the prepared copy is damaged.
        """
        folder = Path(self.data_dir)
        _check_files(folder)
        try:
            expected = self.info.metadata["fingerprint"]
        except (KeyError, TypeError) as error:
            raise _damage_error(folder / "metadata.json", folder) from error
        examples = self._read()
        if fingerprint(examples.images, examples.labels, examples.writers) != expected:
            raise _damage_error(folder, folder)
        return examples

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            # Plain bytes are several times faster to read than integers or PNGs.
            "image": tfds.features.Tensor(
                shape=(*self.image_size, 1), dtype=np.uint8, encoding="bytes"),
            "label": tfds.features.ClassLabel(names=self.class_names),
            "index": tfds.features.Scalar(np.int32),
        }
        if self.has_writers:
            features |= {name: tfds.features.Scalar(np.int32) for name in ("writer", "sample")}
        return CheckedInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        examples = self._source(Path(dl_manager.download_dir) / "flaxdigits")
        self.info.metadata["fingerprint"] = fingerprint(
            examples.images, examples.labels, examples.writers)
        count = len(examples.images)
        train = range(self.official_train or count)
        parts = {"train": train, "test": range(train.stop, count)}
        return {name: [functools.partial(_generate, examples, rows)]
                for name, rows in parts.items() if rows}

    def _source(self, download_dir: Path) -> Examples:
        """Returns synthetic examples, or those of the raw files, which are downloaded if needed."""
        if self.builder_config.name == "drawn":
            return self.draw(DRAWN_SEED, progress=self.progress)
        if self._raw_data_dir is not None:
            return self.read_raw(Path(self._raw_data_dir))
        self.fetch_raw(download_dir, progress=self.progress)
        return self.read_raw(download_dir)

    def _read(self) -> Examples:
        """Returns the examples of the prepared copy, without comparing them with its fingerprint.

        Raises:
          FlaxdigitsError: if the prepared copy is damaged.
        """
        folder = Path(self.data_dir)
        names = ("label", "writer", "sample") if self.has_writers else ("label",)
        try:
            count = self.info.splits.total_num_examples
            images = np.empty((count, *self.image_size), np.uint8)
            columns = {name: np.empty(count, np.int32) for name in names}
            paths = {part: split.filepaths[0] for part, split in self.info.splits.items()}
        except Exception as error:  # the metadata contain invalid numbers or names
            raise _damage_error(folder / "dataset_info.json", folder) from error
        row = 0
        for part, path in paths.items():
            try:
                for features in self._rows(part):
                    pixels = features["image"].bytes_list.value[0]
                    images[row] = np.frombuffer(pixels, np.uint8).reshape(self.image_size)
                    for name, column in columns.items():
                        column[row] = features[name].int64_list.value[0]
                    row += 1
            except Exception as error:  # of several undocumented types
                raise _damage_error(Path(path), folder) from error
        return Examples(images, *columns.values())

    def _rows(self, part: str) -> Iterator[Mapping[str, Any]]:
        """Yields the stored features of each row of a part, in order."""
        # Three times as fast as the row-by-row decoding of tensorflow-datasets.
        source = self.as_data_source(
            part,  # pyright: ignore[reportCallIssue]
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        for start in range(0, len(source), _ROWS_AT_ONCE):
            rows = range(start, min(start + _ROWS_AT_ONCE, len(source)))
            for record in source.__getitems__(rows):
                example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
                yield example.FromString(record).features.feature

    def _log_download_bytes(self) -> None:
        """Does nothing; the base class prints that the size is unknown."""

    def _log_download_done(self) -> None:
        """Does nothing; the base class prints the folder."""


class FlaxdigitsMnist(DigitsBuilder):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28, grayscale."""

    class_names = raw_mnist.CLASS_NAMES
    image_size = (28, 28)
    official_train = raw_mnist.OFFICIAL_TRAIN
    has_writers = False
    read_raw = staticmethod(raw_mnist.read_mnist)
    fetch_raw = staticmethod(raw_mnist.fetch_mnist)

    @staticmethod
    def draw(seed: int, progress: Progress = NO_PROGRESS) -> Examples:
        """Returns synthetic digits, with the same number of examples in each part as in MNIST."""
        from flaxdigits.data.drawn import draw_mnist  # takes 0.2 s, not needed for real data

        drawn = draw_mnist(seed, progress=progress)
        return Examples(drawn.images, drawn.labels)


class FlaxdigitsChineseMnist(DigitsBuilder):
    """Chinese MNIST: 15 characters, each written 10 times by 100 writers, 64x64, grayscale."""

    class_names = raw_chinese_mnist.CLASS_NAMES
    image_size = (64, 64)
    official_train = None
    has_writers = True
    read_raw = staticmethod(raw_chinese_mnist.read_chinese_mnist)
    fetch_raw = staticmethod(raw_chinese_mnist.fetch_chinese_mnist)

    @staticmethod
    def draw(seed: int, progress: Progress = NO_PROGRESS) -> Examples:
        """Returns synthetic characters, with the numbers of writers and samples of Chinese MNIST.
        """
        from flaxdigits.data.drawn import draw_chinese_mnist  # takes 0.2 s, as above

        drawn = draw_chinese_mnist(seed, progress=progress)
        return Examples(drawn.images, drawn.labels, drawn.writers, drawn.samples)


BUILDERS = {"mnist": FlaxdigitsMnist, "chinese_mnist": FlaxdigitsChineseMnist}


def _generate(examples: Examples, rows: range) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in rows:
        features = {
            "image": examples.images[row][..., None],
            "label": int(examples.labels[row]),
            "index": row,
        }
        if examples.writers is not None:
            features |= {"writer": examples.writers[row], "sample": examples.samples[row]}
        yield row, features


def _damage_error(path: Path, folder: Path) -> FlaxdigitsError:
    return FlaxdigitsError(
        f"{path}: the prepared copy is damaged; delete the folder {folder} and run the command "
        "again to prepare it again")


def _check_files(folder: Path) -> None:
    """Checks that the metadata of a prepared copy are JSON and all its files are readable.

    Raises:
      FlaxdigitsError: if not; the message names the first such file.
    """
    path = folder
    try:
        for path in sorted(folder.iterdir()):
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise _damage_error(path, folder)
        for path in (folder / name for name in _METADATA):
            with open_regular(path) as file:
                if not isinstance(json.load(file), dict):
                    raise ValueError("not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise _damage_error(path, folder) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks a folder for this process, and deletes incomplete copies that killed processes left.

    The kernel releases the lock when the process ends for any reason. On a file system without
    locks, every process prepares the data set, and nothing is deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Opened for reading and writing, since opening a FIFO only for writing waits for a reader.
    with open(os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666), "rb") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
            for stale in folder.glob("incomplete.*"):
                shutil.rmtree(stale, ignore_errors=True)
        yield
