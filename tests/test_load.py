"""`flaxdigits.load` and `flaxdigits.dataset`: a trained network and a data set as objects."""

import json
import re

import jax
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import flaxdigits
from flaxdigits.config import DataConfig
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.trained import MAX_BATCH_SIZE, load_network

pytest_plugins = ["tiny_run"]


@pytest.fixture
def without_data(finished_copy, tmp_path):
    """The folder of a run whose data do not exist any more."""
    path = finished_copy / "config.json"
    content = json.loads(path.read_text())
    content["config"]["data"]["folder"] = str(tmp_path / "gone")
    path.write_text(json.dumps(content))
    return finished_copy


@pytest.fixture
def network(without_data, compiled_once):
    return flaxdigits.load(without_data)


def test_a_network_is_loaded_without_its_data(network, finished):
    assert (network.step, network.image_shape) == (6, (28, 28, 1))
    assert network.class_names == tuple("0123456789")
    assert network.config.experiment == "tiny" and network.config.train.steps == 6
    assert network.params["Dense_1"]["kernel"].shape == (8, 10) and network.model_state == {}
    assert repr(network) == "<Network tiny, step 6: uint8 images of 28x28x1 to 10 classes>"
    assert flaxdigits.load(finished, 2).step == flaxdigits.load(finished, "2").step == 2
    assert flaxdigits.load(finished, "best").step in (2, 4, 6)


@pytest.mark.parametrize("count", [0, 1, 5, 2 * MAX_BATCH_SIZE + 3])
def test_logits_of_any_number_of_images(network, tiny_data, count):
    images = tiny_data.images[:count]
    logits = network.logits(images)
    assert logits.shape == (count, 10) and logits.dtype == np.float32
    expected = np.asarray(network.apply(network.variables, tiny_data.images))[:count]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(logits, network.logits(images[..., 0]))
    np.testing.assert_array_equal(network.predict(images), logits.argmax(-1))


def test_the_logits_are_those_of_the_run(network, finished, tiny_data):
    saved = np.load(finished / "predictions.npz", allow_pickle=False)
    np.testing.assert_allclose(
        network.logits(tiny_data.images[saved["test_index"]]), saved["test_logits"],
        rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("images", "message"), [
    (np.zeros((28, 28), np.uint8), r"of shape \[n, 28, 28, 1\] or \[n, 28, 28\], got \[28, 28\]; "
                                   r"for one image, pass image\[None\]"),
    (np.zeros((2, 20, 28), np.uint8), r"got \[2, 20, 28\]"),
    (np.zeros((2, 28, 28, 3), np.uint8), r"got \[2, 28, 28, 3\]"),
    (np.zeros((2, 28, 28)), r"uint8, with values 0 to 255, got float64; for values 0 to 1, "),
    (np.zeros((2, 28, 28), np.int64),
     r"got int64; scale the values to 0 to 255, and pass images.astype\(numpy.uint8\)$"),
    (np.zeros((2, 28, 28), bool), r"got bool$"),
])
def test_images_of_another_shape_or_type_are_refused(network, images, message):
    with pytest.raises(FlaxdigitsError, match=message):
        network.logits(images)


@pytest.mark.parametrize(("call", "message"), [
    (lambda network: network.frame(None), "images must be a list of arrays, got None"),
    (lambda network: network.predict("text"), "images must be uint8, .*, got <U4"),
    (lambda network: network.predict(None), "images must be uint8, .*, got object"),
    (lambda network: network.predict([None]), r"images\[0\] must be uint8 .*, got object"),
    (lambda network: network.logits([[1], [1, 2]]), "images must be an array: "),
    (lambda network: network.confusion(data_folder=3), "data_folder must be a path .*, got 3"),
    (lambda network: network.confusion(data_dir=3), "data_dir must be a path .*, got 3"),
    (lambda network: network.confusion(["test"]), r"split must be .*, got \['test'\]"),
    (lambda network: network.confusion(data=np.zeros(3)), "data must be .*, got ndarray"),
    (lambda network: network.logits(np.zeros((1, 28, 28), np.uint16)),
     "got uint16; scale the values to 0 to 255, and pass images.astype"),
    (lambda network: flaxdigits.predict(network.folder, np.zeros((2, 28, 28, 1), np.uint8)),
     "images must be a path .*, got ndarray$"),
    (lambda network: flaxdigits.load(""), "workdir must be a path .*, got ''"),
    (lambda network: flaxdigits.predict(network.folder, 3), "images must be a path .*, got 3"),
    (lambda _: flaxdigits.load(3), "workdir must be a path .*, got 3"),
    (lambda _: flaxdigits.load(b"runs"), "workdir must be a path .*, got b'runs'"),
    (lambda _: flaxdigits.evaluate("runs/x", experiment=3), "experiment must be a path .*, got 3"),
    (lambda _: flaxdigits.compare(3), "workdirs must be a path .*, got 3"),
    (lambda _: flaxdigits.dataset("npz", folder=3), "folder must be a path .*, got 3"),
    (lambda _: flaxdigits.dataset(3), r"data\.dataset must be "),
    (lambda _: flaxdigits.experiment(3), "name_or_path must be a path .*, got 3"),
    (lambda _: flaxdigits.run_ablation(3), "ablation must be a path .*, got 3"),
    (lambda _: flaxdigits.train(3), "the config must be an ExperimentConfig, .*, got 3"),
    (lambda _: flaxdigits.train(flaxdigits.experiment("mse_cnn"), 3),
     "workdir must be a path .*, got 3"),
])
def test_arguments_of_another_type_are_named(network, call, message):
    with pytest.raises(FlaxdigitsError, match=message) as error:
        call(network)
    assert "\n" not in str(error.value)


def test_arrays_of_any_size_are_framed_as_files_are(network, tmp_path):
    photos = [np.full((100, 100), 230, np.uint8), np.full((60, 90, 3), 30, np.uint8)]
    photos[0][40:52, 20:80] = 30
    photos[1][20:30, 20:70] = (250, 240, 200)
    for index, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / f"{index}.png")
    read = flaxdigits.predict(network.folder, f"{tmp_path}/?.png").predictions
    np.testing.assert_array_equal(
        network.frame(photos), np.stack([each.network_input for each in read])[..., None])
    predicted = network.predict(photos)
    assert predicted.dtype == np.int32
    assert [network.class_names[label] for label in predicted] == [
        each.guesses[0].class_name for each in read]
    assert network.predict([]).shape == (0,)
    for wrong, message in ((np.zeros((9, 9), np.uint8), "the image is empty"),
                           (np.zeros((9, 9, 2), np.uint8), "must be uint8 of shape"),
                           (np.ones((9, 9)), "got float64")):
        with pytest.raises(FlaxdigitsError, match=rf"images\[1\].*{message}"):
            network.frame([photos[0], wrong])


def test_only_the_confusion_needs_the_data(network, finished, idx_folder):
    with pytest.raises(FlaxdigitsError, match="gone: no such folder"):
        network.confusion("test")
    confusion = network.confusion("test", data_folder=idx_folder)
    result = json.loads((finished / "result.json").read_text())
    assert confusion.shape == (10, 10) and confusion.sum() == result["test_examples"] == 70
    assert confusion.sum() - confusion.trace() == result["test_errors"]
    np.testing.assert_array_equal(confusion.sum(1), np.full(10, 7))  # rows are the true classes
    with pytest.raises(FlaxdigitsError, match="split must be one of train, validation, test, got"):
        network.confusion("all", data_folder=idx_folder)


def test_a_network_computes_in_float32_whatever_jax_is_set_to(network, tiny_data):
    expected = network.logits(tiny_data.images[:3])
    jax.config.update("jax_enable_x64", True)
    try:
        again = load_network(network.folder).logits(tiny_data.images[:3])
        assert jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", False)
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-6)


# --- data sets ------------------------------------------------------------------------------------

@pytest.fixture
def arguments(idx_folder, tiny_data, tmp_path):
    """The arguments of `flaxdigits.dataset` for data sets of each kind."""
    np.savez(tmp_path / "digits.npz", images=tiny_data.images, labels=tiny_data.labels,
             writers=np.arange(270) // 20)
    for row in range(40):
        path = tmp_path / "photos" / str(row % 2) / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny_data.images[row, ..., 0]).save(path)
    return {"idx_files": {"folder": idx_folder}, "npz": {"folder": tmp_path / "digits.npz"},
            "image_folder": {"folder": tmp_path / "photos", "image_size": 14},
            "arrays": {"data": flaxdigits.DataArrays(tiny_data.images, tiny_data.labels)}}


@pytest.mark.parametrize(("name", "size", "classes", "splits"), [
    ("idx_files", (270, 28, 28, 1), 10, ("official", "holdout", "random", "fractions", "kfold")),
    ("npz", (270, 28, 28, 1), 10, ("holdout", "random", "fractions", "kfold", "writers")),
    ("image_folder", (40, 14, 14, 1), 2, ("holdout", "random", "fractions", "kfold")),
    ("arrays", (270, 28, 28, 1), 10, ("holdout", "random", "fractions", "kfold")),
])
def test_a_data_set_is_loaded_by_name(arguments, name, size, classes, splits):
    dataset = flaxdigits.dataset(name, **arguments[name])
    assert dataset.images.shape == size and dataset.images.dtype == np.uint8
    assert dataset.labels.shape == size[:1] and len(dataset.class_names) == classes
    assert dataset.splits == splits and (dataset.writers is not None) == ("writers" in splits)
    assert repr(dataset) == (f"<Dataset {name}: {size[0]} images of {size[1]}x{size[2]}, "
                             f"{classes} classes>")
    for split in splits:
        parts = dataset.split(split)
        expected = split_indices(DataConfig(name, split), dataset)
        assert parts.keys() == expected.keys()
        assert all((parts[part] == expected[part]).all() for part in parts)


def test_the_arguments_of_a_split_are_those_of_the_config(tiny_data, tmp_path):
    parts = tiny_data.split("kfold", fold=1, folds=3, seed=7, limit=50)
    expected = split_indices(
        DataConfig("idx_files", "kfold", 1, 3, 7, limit=50), tiny_data)
    assert all((parts[part] == expected[part]).all() for part in expected)
    (tmp_path / "split.json").write_text(json.dumps({"train": [0, 1, 2], "test": [5]}))
    parts = tiny_data.split("indices", indices=tmp_path / "split.json")
    assert parts["train"].tolist() == [0, 1, 2] and parts["test"].tolist() == [5]
    for arguments, message in (
            ({"name": "writers"}, "idx_files has no such split; use one of official, "),
            ({"name": "kfold", "fold": 12}, "data.fold must be at most 9, got 12"),
            ({"name": "kfold", "folds": "x"}, "data.folds must be an integer, got 'x'"),
            ({"name": "official", "stratify": True}, "data.stratify=true needs data.split="),
            ({"name": "indices"}, "data.split=indices needs data.indices")):
        with pytest.raises(FlaxdigitsError, match=message):
            tiny_data.split(**arguments)


@pytest.mark.parametrize(("name", "message"), [
    ("mnst", "did you mean mnist"), ("npz", "data.folder must name an .npz file"),
    ("arrays", "passed in Python"), ("tfds:none", "none")])
def test_a_data_set_that_cannot_be_loaded_is_an_error_of_one_line(name, message):
    with pytest.raises(FlaxdigitsError, match=message) as error:
        flaxdigits.dataset(name)
    assert "\n" not in str(error.value)


# --- docs/python.md -------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "python.md").read_text()


@pytest.mark.slow
def test_the_page_works_from_load_to_confusion(raw_data_dir, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    code = "".join(blocks)
    assert code.count("flaxdigits.train(") == 1 and ".confusion(" in code
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLAXDIGITS_RAW_DATA", str(raw_data_dir))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    (tmp_path / "scans").mkdir()
    Image.fromarray(np.kron(np.eye(20, dtype=np.uint8) * 200, np.ones((5, 5), np.uint8))).save(
        tmp_path / "scans" / "3.png")
    variables = {}
    exec(compile(code.replace('"train.epochs=1"', '"train.steps=2"'), "python.md", "exec"),
         variables)
    assert variables["confusion"].sum() == 10_000
    assert variables["mnist"].splits == ("official", "holdout", "kaggle", "fractions", "kfold")
    assert len(variables["indices"]["train"]) == 55_000
