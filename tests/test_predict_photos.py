"""Photos of real handwriting are read about as well as the images of the data set themselves."""

import numpy as np
import pytest
from PIL import Image

from flaxdigits.api.data import prepare
from flaxdigits.api.experiment import experiment
from flaxdigits.api.predict import predict
from flaxdigits.api.train import train
from flaxdigits.data.splits import split_indices

COUNT = 400  # of the test images


def photo(image, rng):
    """Ink on paper of some size and colors, off the middle, in uneven light, with grain."""
    side = int(rng.integers(120, 400))
    ground, ink = np.array([225, 215, 195.0]), np.array([40, 40, 95.0])
    if rng.random() < 0.5:  # chalk on a board
        ground, ink = np.array([45, 70, 60.0]), np.array([225, 225, 215.0])
    strokes = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    height, width = side + int(rng.integers(0, side)), side + int(rng.integers(0, side))
    strength = np.zeros((height, width))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    strength[top:top + side, left:left + side] = np.asarray(strokes) / 255
    light = rng.uniform(0.6, 0.8) + 0.2 * np.linspace(-1, 1, width) * rng.uniform(-1, 1)
    pixels = (ground + strength[..., None] * (ink - ground)) * light[None, :, None]
    return Image.fromarray(
        (pixels + rng.normal(0, 4, (height, width, 1))).clip(0, 255).astype(np.uint8))


@pytest.mark.slow
def test_photos_of_digits_are_read(raw_data_dir, tmp_path):
    config = experiment("dense_cnn", "train.epochs=1")
    run = tmp_path / "run"
    result = train(config, run, data="real", raw_data_dir=raw_data_dir, tensorboard=False).result
    dataset = prepare(config, data="real", raw_data_dir=raw_data_dir)
    rows = split_indices(config.data, dataset)["test"][:COUNT]
    rng = np.random.default_rng(0)
    for place, row in enumerate(rows):
        photo(dataset.images[row, ..., 0], rng).save(tmp_path / f"{place}.jpg", quality=85)
    readings = predict(run, [tmp_path / f"{place}.jpg" for place in range(COUNT)]).predictions
    right = [reading.error is None
             and reading.guesses[0].class_name == dataset.class_names[dataset.labels[row]]
             for reading, row in zip(readings, rows, strict=True)]
    print(f"photos {np.mean(right):.2%}, images {result['test_accuracy']:.2%}")
    assert np.mean(right) > result["test_accuracy"] - 0.02

    rows = split_indices(config.data, dataset)["test"][:1000]
    labels = [dataset.class_names[label] for label in dataset.labels[rows]]
    accuracy = {}
    for name, cut in (("whole", lambda image: image), ("crop", crop)):
        files = [tmp_path / f"{name}{place}.png" for place in range(len(rows))]
        for path, row in zip(files, rows, strict=True):
            Image.fromarray(cut(dataset.images[row, ..., 0])).save(path)
        read = [(reading.guesses[0].class_name, label)
                for reading, label in zip(predict(run, files).predictions, labels, strict=True)
                if reading.error is None]
        assert len(read) >= 0.99 * len(rows)
        accuracy[name] = np.mean([guess == label for guess, label in read])
    print(accuracy)
    assert accuracy["crop"] > accuracy["whole"] - 0.01


def crop(image):
    """The image, cut to its ink."""
    rows, columns = np.nonzero(image)
    return image[rows.min():rows.max() + 1, columns.min():columns.max() + 1]
