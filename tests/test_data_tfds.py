"""Data sets of tensorflow-datasets: prepared without TensorFlow here, read by their files alone."""

import io
import json
import subprocess
import sys
import textwrap
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from flaxdigits.config import DataConfig
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError

pytest_plugins = ["tiny_run"]

NAMES = ["cat", "dog"]
PIXELS = np.random.default_rng(0).integers(0, 256, (14, 8, 6, 3)).astype(np.uint8)


def png(pixels) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return io.BytesIO(file.getvalue())


class ColorPets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Color images as PNGs, in three parts, by five people."""

    VERSION = tfds.core.Version("1.2.0")
    SPLITS: ClassVar = {"train": range(8), "validation": range(8, 11), "test": range(11, 14)}

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(
            self.features()), supervised_keys=("image", "label"))

    def features(self):
        return {"image": tfds.features.Image(shape=(8, 6, 3)),
                "label": tfds.features.ClassLabel(names=NAMES),
                "writer": tfds.features.Scalar(np.int32)}

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(rows) for part, rows in self.SPLITS.items()}

    def _generate_examples(self, rows):
        for row in rows:
            yield row, self.example(row)

    def example(self, row):
        return {"image": png(PIXELS[row]), "label": row % 2, "writer": row % 5}


class SeveralSizes(ColorPets, skip_registration=True):
    """Images of two sizes."""

    def features(self):
        return super().features() | {"image": tfds.features.Image(shape=(None, None, 3))}

    def example(self, row):
        return super().example(row) | {"image": png(PIXELS[row, :7 + row % 2])}


class Unlabeled(ColorPets, skip_registration=True):
    """Images without classes."""

    def features(self):
        return super().features() | {"label": tfds.features.Scalar(np.int64)}


class OnlyTest(ColorPets, skip_registration=True):
    """No training part."""

    SPLITS: ClassVar = {"test": range(4)}


def prepare(cls, data_dir, **kwargs):
    builder = cls(data_dir=data_dir, file_format="array_record", **kwargs)
    builder.download_and_prepare()
    return builder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for cls in (ColorPets, SeveralSizes, Unlabeled, OnlyTest):
        prepare(cls, folder)
    return folder


def load(name, data_dir):
    return load_dataset(
        DataConfig(f"tfds:{name}", "holdout"), DataLocations(data_dir=data_dir))


def error_message(name, data_dir) -> str:
    with pytest.raises(FlaxdigitsError) as error:
        load(name, data_dir)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["color_pets", "color_pets:1.2.0"])
def test_a_prepared_builder_is_read(name, data_dir):
    data = load(name, data_dir)
    assert data.class_names == ("cat", "dog") and data.name == f"tfds:{name}"
    assert (data.official_train, data.validation) == (8, range(8, 11))
    # tensorflow-datasets shuffles the rows of a part.
    rows = [next(row for row in range(14) if np.array_equal(PIXELS[row], image))
            for image in data.images]
    assert [sorted(rows[:8]), sorted(rows[8:11]), sorted(rows[11:])] == [
        list(range(8)), [8, 9, 10], [11, 12, 13]]
    np.testing.assert_array_equal(data.labels, np.array(rows) % 2)
    np.testing.assert_array_equal(data.writers, np.array(rows) % 5)
    parts = split_indices(DataConfig(f"tfds:{name}", "holdout"), data)
    assert [len(parts[part]) for part in ("train", "validation", "test")] == [8, 3, 3]


def test_reading_imports_neither_tensorflow_nor_the_builder(data_dir, environment):
    code = f"""
        import sys
        from flaxdigits.config import DataConfig
        from flaxdigits.data.dataset import DataLocations, load_dataset
        data = load_dataset(
            DataConfig("tfds:color_pets"), DataLocations(data_dir={str(data_dir)!r}))
        print(data.images.shape, "tensorflow" in sys.modules, "test_data_tfds" in sys.modules)
    """
    completed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment,
                               capture_output=True, text=True, check=False)
    assert completed.stdout.strip() == "(14, 8, 6, 3) False False", completed.stderr


def test_a_builder_of_this_package_is_read_as_any_other(tmp_path):
    from tiny_digits import TinyDigits

    TinyDigits(data_dir=tmp_path, config="drawn").download_and_prepare()
    assert "name one of its configs, such as tfds:tiny_digits/drawn" in error_message(
        "tiny_digits", tmp_path)
    data, drawn = load("tiny_digits/drawn", tmp_path), TinyDigits.draw(0)
    np.testing.assert_array_equal(data.images[..., 0], drawn.images)
    np.testing.assert_array_equal(data.writers, drawn.writers)


@pytest.mark.parametrize(("name", "message"), [
    ("color_pets:9.9.9", "version 9.9.9 is not prepared in"),
    ("cifar10", ".download_and_prepare(), which needs TensorFlow for most builders"),
    ("several_sizes", "its images have different sizes, such as [7, 6, 3] and [8, 6, 3]"),
    ("unlabeled", "is not image classification: it must have one image and one ClassLabel"),
    ("only_test", "has no split named train, which is required; its splits are test"),
])
def test_unsupported_data_is_a_one_line_error(name, message, data_dir):
    assert message in error_message(name, data_dir)


@pytest.mark.parametrize("name", ["", "../up", "a/../b", "a b", "a/.hidden", "a:1"])
def test_names_stay_within_the_data_folder(name, launch_here):
    completed = launch_here(
        "--mode=prepare", "--experiment=dense_cnn", f"--set=data.dataset=tfds:{name}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert "data.dataset must be one of" in completed.stderr


def test_another_format_needs_tensorflow(tmp_path):
    builder = prepare(ColorPets, tmp_path)
    path = builder.data_path / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    assert "is prepared as tfrecord, which needs TensorFlow to be read" in error_message(
        "color_pets", tmp_path)


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", "train.array_record"])
def test_damaged_files_are_named(name, tmp_path):
    folder = prepare(ColorPets, tmp_path).data_path
    path = next(folder.glob("*train*")) if "train" in name else folder / name
    path.write_bytes(path.read_bytes()[:40])
    message = error_message("color_pets", tmp_path)
    assert "is damaged (" in message and "prepare it again" in message and str(folder) in message


def test_features_import_no_other_classes(tmp_path):
    folder = prepare(ColorPets, tmp_path).data_path
    path = folder / "features.json"
    features = json.loads(path.read_text())
    features["pythonClassName"] = "antigravity.Feature"
    path.write_text(json.dumps(features))
    assert "names the class 'antigravity.Feature'" in error_message("color_pets", tmp_path)


@pytest.mark.slow
def test_a_prepared_builder_is_trained_on(data_dir, launch_here, tmp_path):
    completed = launch_here(
        "--experiment=dense_cnn", "--set=data.dataset=tfds:color_pets", "--set=data.split=holdout",
        f"--data_dir={data_dir}", "--set=train.steps=2", "--set=model.filters=2",
        "--set=model.dense=4,4", f"--workdir={tmp_path / 'run'}")
    assert completed.returncode == 0, completed.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["dataset"], result["test_examples"]) == ("tfds:color_pets", 3)
