"""Images of one, three and other numbers of channels, from the file to the prediction."""

import functools
import json

import jax
import numpy as np
import pytest
from PIL import Image

from flaxdigits.augmentations import (
    Affine,
    Augmentation,
    Blur,
    Brightness,
    Cutout,
    Elastic,
    Noise,
    Thickness,
)
from flaxdigits.config import DataConfig
from flaxdigits.data.arrays import DataArrays
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.data.preprocessing import preprocess
from flaxdigits.data.splits import split_indices
from flaxdigits.data.squares import fit_colors
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.predict import predict_images
from flaxdigits.evaluation.trained import load_network
from flaxdigits.models.convolution import convolve, convolve_native

pytest_plugins = ["tiny_run"]

RNG = np.random.default_rng(0)
BUILT_IN = [Affine(rotation=20, zoom=0.1, shift=0.1, shear=10), Blur(), Brightness(), Cutout(),
           Elastic(), Noise(), Thickness(pixels=2)]


def save(path, channels: int, count: int = 120):
    """Two classes: a bright band in the upper or in the lower half of every channel."""
    labels = np.arange(count) % 2
    images = RNG.integers(0, 60, (count, 12, 10, channels)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 + 5 * label:5 + 5 * label, 2:8] += 150
    np.savez(path, images=images, labels=labels, class_names=["upper", "lower"])
    return path


@pytest.mark.parametrize("augmentation", BUILT_IN, ids=lambda one: one.name)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_every_augmentation_keeps_any_number_of_channels(augmentation, channels):
    assert {type(one) for one in BUILT_IN} == {
        cls for cls in Augmentation.registered.values() if cls.__module__.startswith("flaxdigits")}
    image = RNG.uniform(0, 255, (12, 10, channels)).astype(np.float32)
    augmented = np.asarray(augmentation.augment(image, jax.random.key(1)))
    assert augmented.shape == image.shape and np.isfinite(augmented).all()
    assert not np.array_equal(augmented, image)


@pytest.mark.parametrize("name", ["unit", "column_norm", "raw"])
def test_channels_are_preprocessed_each_by_itself(name):
    images = RNG.integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)
    whole = preprocess(images, name)
    for channel in range(3):
        np.testing.assert_array_equal(
            whole[..., channel], preprocess(images[..., channel:channel + 1], name)[..., 0])


@pytest.mark.parametrize(("model", "filters", "channels"), [
    ("dense_cnn", "2", 3),
    pytest.param("dense_cnn", "2", 2, marks=pytest.mark.slow),
    pytest.param("kaggle_cnn", "2,2,2,2", 3, marks=pytest.mark.slow)])
def test_images_of_several_channels_are_trained_on_and_read(
    launch_here, tmp_path, model, filters, channels
):
    data = save(tmp_path / "data.npz", channels)
    workdir = tmp_path / "run"
    settings = [
        "--experiment=dense_cnn", "--set=data.dataset=npz", f"--set=data.folder={data}",
        "--set=data.split=holdout", f"--set=model.name={model}", f"--set=model.filters={filters}",
        "--set=model.dense=8", "--set=model.dropout=", "--set=train.steps=4",
        "--set=train.batch_size=20", "--set=optimizer.learning_rate=0.02",
        "--set=data.augmentation=affine,noise", "--set=data.augmentation.affine.shift=0.05"]
    completed = launch_here(*settings, f"--workdir={workdir}")
    assert completed.returncode == 0, completed.stderr
    result = json.loads((workdir / "result.json").read_text())
    assert 0 <= result["test_accuracy"] <= 1
    recorded = json.loads((workdir / "config.json").read_text())["data"]
    assert recorded["image_shape"] == [12, 10, channels] and "framing" not in recorded

    sheet = launch_here("--mode=data", *settings, f"--workdir={tmp_path / 'sheet'}")
    assert sheet.returncode == 0 and f"12x10x{channels} images" in sheet.stdout
    summary = launch_here("--mode=summary", *settings)
    assert summary.returncode == 0, summary.stderr

    network = load_network(workdir)
    assert network.image_shape == (12, 10, channels)
    dataset = load_dataset(DataConfig("npz", "holdout", folder=str(data)), DataLocations())
    logits = np.asarray(network.logits(dataset.images))
    test = split_indices(network.config.data, dataset)["test"]
    assert (logits.argmax(1) == dataset.labels)[test].mean() == result["test_accuracy"]

    path = tmp_path / "image.png"
    Image.fromarray(np.resize(dataset.images[0], (12, 10, 3))).save(path)
    (prediction,) = predict_images(network, [path])
    if channels == 3:
        assert prediction.network_input.shape == (12, 10, 3)
        np.testing.assert_array_equal(prediction.network_input, dataset.images[0])
        assert prediction.guesses[0].class_name == dataset.class_names[logits[0].argmax()]
    if model == "kaggle_cnn":
        assert launch_here(
            "--mode=predict", f"--workdir={workdir}", f"--images={path}").returncode == 0
        exported = launch_here("--mode=export", f"--workdir={workdir}")
        assert exported.returncode == 0 and "12x10x3" in exported.stdout
    elif channels == 2:
        assert "the network was trained on images of 2 channels" in prediction.error


def test_a_picture_is_fitted_in_colors():
    picture = np.full((20, 40, 3), (200, 10, 30), np.uint8)
    fitted = fit_colors(Image.fromarray(picture), 12, 10)
    assert fitted.shape == (12, 10, 3)
    assert (fitted == (200, 10, 30)).all()  # the border is padded in its own color


def test_one_channel_with_and_without_its_axis_are_the_same_data(tmp_path):
    images, labels = RNG.integers(0, 256, (8, 4, 5)).astype(np.uint8), np.arange(8) % 2
    loaded = []
    for name, array in (("a", images), ("b", images[..., None])):
        np.savez(tmp_path / f"{name}.npz", images=array, labels=labels)
        loaded.append(load_dataset(
            DataConfig("npz", "random", folder=str(tmp_path / f"{name}.npz")), DataLocations()))
    assert loaded[0].identity() == loaded[1].identity()
    np.testing.assert_array_equal(loaded[0].images, loaded[1].images)


def test_the_same_bytes_in_another_shape_are_other_data(tmp_path):
    images = RNG.integers(0, 256, (8, 4, 6)).astype(np.uint8)
    shapes = []
    for name, array in (("a", images), ("b", images.reshape(8, 4, 2, 3))):
        np.savez(tmp_path / f"{name}.npz", images=array, labels=np.arange(8) % 2)
        shapes.append(load_dataset(DataConfig(
            "npz", "random", folder=str(tmp_path / f"{name}.npz")), DataLocations()).identity())
    assert shapes[0] != shapes[1]


def test_images_must_be_bytes():
    with pytest.raises(FlaxdigitsError, match=r"images must be uint8.*got float64"):
        DataArrays(np.zeros((4, 3, 3)), [0, 1, 0, 1])


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("size", [3, 5])
def test_convolutions_of_few_channels_equal_those_of_xla(channels, size):
    x = RNG.normal(size=(4, 12, 10, channels)).astype(np.float32)
    kernel = RNG.normal(size=(size, size, channels, 6)).astype(np.float32)

    def loss(form, x, kernel):
        return (form(x, kernel, "SAME") ** 2).sum()

    np.testing.assert_allclose(
        convolve(x, kernel, "SAME"), convolve_native(x, kernel, "SAME"), rtol=1e-4, atol=1e-4)
    ours, native = (jax.jit(jax.grad(functools.partial(loss, form), (0, 1)))(x, kernel)
                    for form in (convolve, convolve_native))
    for one, other in zip(ours, native, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-2)
