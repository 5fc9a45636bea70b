"""Tests of the drawn data: its form, its statistics and what can be learnt from it."""

import csv
import gzip
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from flaxdigits.data.drawn import draw_chinese_mnist, draw_mnist, handwriting
from flaxdigits.data.drawn.handwriting import control_points, curve_weights
from flaxdigits.data.drawn.mnist import CLASS_COUNTS
from flaxdigits.data.drawn.numeral_skeletons import NUMERALS
from flaxdigits.data.drawn.rendering import blurred_line, jpeg_rounded
from flaxdigits.data.drawn.skeletons import DIGITS

WRITERS = 12


@pytest.fixture(scope="module")
def mnist():
    return draw_mnist(seed=0, train_count=3000, test_count=1000)


@pytest.fixture(scope="module")
def chinese():
    return draw_chinese_mnist(seed=0, writer_count=WRITERS)


def test_skeletons_are_well_formed():
    assert len(DIGITS) == 10
    assert len(NUMERALS) == 15
    for skeletons in DIGITS + NUMERALS:
        assert sum(skeleton.share for skeleton in skeletons) == pytest.approx(1)
        for skeleton in skeletons:
            for stroke in skeleton.strokes:
                assert np.array(stroke).min() >= 0 and np.array(stroke).max() <= 1
                curve = curve_weights(stroke) @ control_points(stroke)
                assert curve[0] == pytest.approx(complex(*stroke[0]))
                assert curve[-1] == pytest.approx(complex(*stroke[-1]))


def test_a_point_written_twice_is_a_corner():
    corner = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    path = curve_weights(corner) @ control_points(corner)
    assert np.all((np.abs(path.imag) < 1e-9) | (np.abs(path.real - 1) < 1e-9))


def test_mnist_form(mnist):
    assert mnist.images.shape == (4000, 28, 28) and mnist.images.dtype == np.uint8
    assert mnist.labels.shape == (4000,) and mnist.labels.dtype == np.int32
    assert mnist.writers is None and mnist.samples is None
    shares = np.bincount(mnist.labels, minlength=10) / len(mnist.labels)
    np.testing.assert_allclose(shares, CLASS_COUNTS / CLASS_COUNTS.sum(), atol=0.02)
    # The training part and the test part are drawn alike: no run of one class.
    assert len(np.unique(mnist.labels[:100])) == 10 and len(np.unique(mnist.labels[-100:])) == 10


def test_chinese_mnist_form(chinese):
    n = 15 * 10 * WRITERS
    assert chinese.images.shape == (n, 64, 64) and chinese.images.dtype == np.uint8
    for column in (chinese.labels, chinese.writers, chinese.samples):
        assert column.shape == (n,) and column.dtype == np.int32
    triples = set(zip(chinese.labels, chinese.writers, chinese.samples, strict=True))
    assert triples == {
        (c, w, s) for c in range(15) for w in range(1, WRITERS + 1) for s in range(1, 11)
    }


def draw_both(seed: int) -> bytes:
    """The bytes of a few drawn digits, then numerals, and of their labels."""
    digits, numerals = draw_mnist(seed, 200, 50), draw_chinese_mnist(seed, 2)
    arrays = (digits.images, digits.labels, numerals.images, numerals.labels)
    return b"".join(array.tobytes() for array in arrays)


def test_same_seed_same_bytes():
    assert draw_both(0) == draw_both(0)
    assert draw_both(0) != draw_both(1)


def test_images_do_not_depend_on_chunk_size(monkeypatch):
    whole = draw_both(0)
    monkeypatch.setattr(handwriting, "CHUNK", 3)
    assert draw_both(0) == whole


def test_any_count_can_be_drawn():
    assert draw_mnist(0, 1, 0).images.shape == (1, 28, 28)
    assert draw_chinese_mnist(0, 1).images.shape == (150, 64, 64)


def test_mnist_statistics(mnist):
    pixels = mnist.images / 255
    # Real MNIST's 60,000 training images: mean 0.1307, standard deviation 0.3081.
    assert pixels.mean() == pytest.approx(0.1307, abs=0.012)
    assert pixels.std() == pytest.approx(0.3081, abs=0.015)
    grid = np.arange(28)
    mass = pixels.sum((1, 2))
    assert np.abs(pixels.sum(2) @ grid / mass - 13.5).mean() < 1
    assert np.abs(pixels.sum(1) @ grid / mass - 13.5).mean() < 1
    inked = mnist.images > 64
    height = inked.any(2).sum(1)
    width = inked.any(1).sum(1)
    larger = np.maximum(height, width)
    assert np.median(larger) == 20 and np.all(larger <= 23)


def test_chinese_mnist_statistics(chinese):
    pixels = chinese.images / 255
    # Of the 15,000 real images: mean 0.0086, standard deviation 0.0545 of full scale (0.0101 and
    # 0.0598 for writers 1 to 50), brightest pixel of the median image 176 of 255.
    assert 0.007 < pixels.mean() < 0.013
    assert 0.045 < pixels.std() < 0.070
    assert np.median(chinese.images.max((1, 2))) == pytest.approx(176, abs=15)
    assert np.all(chinese.images.max((1, 2)) > 60)


def test_writers_differ_more_than_samples_of_one_writer(chinese):
    extent = (chinese.images > 60).any(1).sum(1).astype(float)  # columns with ink
    table = np.zeros((15, WRITERS, 10))
    table[chinese.labels, chinese.writers - 1, chinese.samples - 1] = extent
    assert table.mean(2).std(1).mean() > 1.5 * table.std(2).mean()


def test_a_straight_line_has_the_profile_asked_for():
    sigma = np.array([0.8])
    path = np.linspace(-20, 40, 400)[None] + 10.3j
    image = blurred_line([path], [np.ones((1, 400))], sigma, 21)[0]
    expected = np.exp(-0.5 * ((np.arange(21) - 10.3) / sigma[0]) ** 2)
    np.testing.assert_allclose(image[:, 10], expected, atol=0.06)


def test_jpeg_rounding_is_that_of_a_jpeg_file():
    ink = np.zeros((64, 64), np.uint8)
    ink[20:22, 10:50] = 170
    ink[10:50, 31] = 120
    file = io.BytesIO()
    Image.fromarray(ink).save(file, "JPEG", quality=75)
    decoded = np.asarray(Image.open(file)).astype(int)
    ours = jpeg_rounded(ink[None].astype(np.float64))[0].astype(int)
    # Pillow computes in integers, so its pixels may differ a little.
    assert np.abs(decoded - ours).max() <= 4 < np.abs(decoded - ink).max()


def centered(images: np.ndarray) -> np.ndarray:
    """Moves each image so that the ink's center of mass is in the middle."""
    moved = np.empty_like(images)
    grid = np.arange(images.shape[1])
    for i, image in enumerate(images):
        ink = np.where(image > 50, image, 0).astype(float) + 1e-9
        down, right = (ink.sum(axis) @ grid / ink.sum() for axis in (1, 0))
        middle = (len(grid) - 1) / 2
        moved[i] = np.roll(image, (round(middle - down), round(middle - right)), (0, 1))
    return moved


def features(images: np.ndarray, block: int) -> np.ndarray:
    """[n, blocks * blocks + 1]: means over square blocks, and a constant."""
    n, size, _ = images.shape
    means = images.reshape(n, size // block, block, size // block, block).mean((2, 4)) / 255
    return np.c_[means.reshape(n, -1), np.ones(n)]


def linear_classifier(inputs: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Weights of ridge regression to one-hot labels."""
    gram = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    return np.linalg.solve(gram, inputs.T @ np.eye(labels.max() + 1)[labels])


def accuracy(weights: np.ndarray, inputs: np.ndarray, labels: np.ndarray) -> float:
    return float(((inputs @ weights).argmax(1) == labels).mean())


def test_digits_are_recognisable(mnist):
    inputs = features(mnist.images, 2)
    weights = linear_classifier(inputs[:3000], mnist.labels[:3000], 0.3)
    assert accuracy(weights, inputs[3000:], mnist.labels[3000:]) > 0.75


def test_numerals_of_unseen_writers_are_recognisable(chinese):
    inputs = features(centered(chinese.images), 4)
    train = chinese.writers <= WRITERS // 2
    weights = linear_classifier(inputs[train], chinese.labels[train], 0.01)
    assert accuracy(weights, inputs[~train], chinese.labels[~train]) > 0.5


def test_drawn_digits_teach_to_read_real_ones(mnist, raw_data_dir):
    def read(name: str, offset: int) -> np.ndarray:
        content = gzip.decompress((raw_data_dir / "mnist" / name).read_bytes())
        return np.frombuffer(content, np.uint8, offset=offset)

    images = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = read("t10k-labels-idx1-ubyte.gz", 8)
    weights = linear_classifier(features(mnist.images, 2), mnist.labels, 0.3)
    assert accuracy(weights, features(images, 2), labels) > 0.65


def test_drawn_numerals_teach_to_read_real_ones(chinese, raw_data_dir):
    images, labels = [], []
    with zipfile.ZipFile(raw_data_dir / "chinese_mnist" / "chinese_mnist.zip") as archive:
        text = archive.read("chinese_mnist.csv").decode()
        for row in list(csv.DictReader(io.StringIO(text)))[::8]:
            name = f"data/data/input_{row['suite_id']}_{row['sample_id']}_{row['code']}.jpg"
            images.append(np.asarray(Image.open(io.BytesIO(archive.read(name)))))
            labels.append(int(row["code"]) - 1)
    weights = linear_classifier(features(centered(chinese.images), 4), chinese.labels, 0.01)
    assert accuracy(weights, features(centered(np.stack(images)), 4), np.array(labels)) > 0.4


def test_rows_are_in_the_order_of_the_real_csv(chinese, raw_data_dir):
    with zipfile.ZipFile(raw_data_dir / "chinese_mnist" / "chinese_mnist.zip") as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("chinese_mnist.csv").decode())))
    real = [
        (int(row["code"]) - 1, int(row["suite_id"]), int(row["sample_id"]))
        for row in rows
        if int(row["suite_id"]) <= WRITERS
    ]
    assert real == list(
        zip(chinese.labels, chinese.writers, chinese.samples, strict=True)
    )
