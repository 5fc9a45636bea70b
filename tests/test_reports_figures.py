"""Figures and image grids: their content, fonts, and any kind of data."""

import io
import warnings

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from PIL import Image

from flaxdigits import metrics
from flaxdigits.data.raw_chinese_mnist import CLASS_NAMES
from flaxdigits.evaluation.predict import Guess, ImagePrediction
from flaxdigits.reports.figures import (
    DARK,
    LIGHT,
    WEIGHTS,
    blank_figure,
    confusion,
    curves,
    first_layer,
    png,
)
from flaxdigits.reports.fonts import drawable_labels, families
from flaxdigits.reports.forest import ForestRow, forest
from flaxdigits.reports.image_grids import (
    class_grid,
    most_confident_errors,
    prediction_grid,
    sample_positions,
    select_predictions,
    softmax,
)
from flaxdigits.reports.image_predictions import image_prediction_grid
from flaxdigits.reports.layers import Layer
from flaxdigits.reports.run_report import RunReport
from flaxdigits.reports.writers import error_map
from flaxdigits.studies.statistics import Difference

LABELS = np.array([0, 1, 2, 0, 1, 2])
LOGITS = np.array([[2, 0, 0], [3, 0, 0], [0, 0, 1], [0, 9, 0], [0, 1, 0], [0, 1, 0.5]], np.float32)
IMAGES = (np.arange(6 * 12) * 3 % 256).astype(np.uint8).reshape(6, 4, 3, 1)


@pytest.fixture(autouse=True)
def warnings_are_errors():
    """Matplotlib warns of every character that becomes an empty box."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def has(font, names):
    face = FT2Font(font.get_file())
    return all(face.get_char_index(ord(character)) for name in names for character in name)


def pixels(file):
    image = Image.open(io.BytesIO(file))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def result(**changes):
    split = {"accuracy": 0.5, "loss": 1.25, "errors": 3, "examples": 6}
    return {
        "experiment": "tiny", "dataset": "idx_files", "data_source": "real", "split": "official",
        "seed": 0, "parameters": 12, "steps": 8, "epochs": 2.0, "checkpoint": "last",
        "checkpoint_step": 8, "seconds_training": 1.0, "device": "cpu x 1",
        **{f"train_{name}": value for name, value in split.items()},
        **{f"validation_{name}": None for name in split},
        **{f"test_{name}": value for name, value in split.items()}} | changes


def report(**changes):
    rows = [{"step": step, "train_loss": 2 / step, "train_accuracy": 1 - 1 / step}
            for step in range(1, 9)]
    layers = [Layer(("Dense_0",), "Dense", (3,), 39, 72)]
    return RunReport(**{
        "result": result(), "config": {"seed": 0}, "about": {"git_commit": None}, "rows": rows,
        "layers": layers, "class_names": ("a", "b", "c"), "split": "test", "images": IMAGES,
        "index": np.arange(6), "labels": LABELS, "logits": LOGITS, "filters": None} | changes)


def test_a_font_that_is_found_has_the_characters():
    for names in (CLASS_NAMES, ("Ångström", "ж"), tuple("0123456789")):
        labels = drawable_labels(names)
        assert has(labels.font, labels.names)
        assert len(set(labels.names)) == len(names)


def test_without_a_font_there_are_other_names():
    labels = drawable_labels(CLASS_NAMES, paths=["/no/such/font.ttf"])
    assert labels.names == ("líng", "yī", "èr", "sān", "sì", "wǔ", "liù", "qī", "bā", "jiǔ", "shí",
                            "bǎi", "qiān", "wàn", "yì")
    assert has(labels.font, labels.names)
    assert drawable_labels(("a", "猫", "é"), paths=[]).names == ("a", "class 1", "é")


@pytest.mark.parametrize("paths", [None, []])
def test_every_character_is_drawn(paths):
    names = drawable_labels(CLASS_NAMES, paths)
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 15, (2, 60))
    images = rng.integers(0, 255, (60, 8, 8, 1), np.uint8)
    shown = select_predictions(
        images, np.arange(60), labels, np.eye(15)[predicted], sample_positions(60))
    for figure in (confusion(metrics.confusion(np.eye(15)[predicted], labels), names),
                   prediction_grid(shown, names, "samples"),
                   class_grid(images / 255, labels, names, "data")):
        assert pixels(png(figure)).std() > 5


def test_names_in_any_script_are_drawn_or_boxes_without_a_warning(monkeypatch):
    figure, axes = blank_figure(2, 1, LIGHT)
    axes.set_title("名字, 三 ± 1")
    rendered = pixels(png(figure))
    monkeypatch.setattr("flaxdigits.reports.figures.families", lambda: ["DejaVu Sans"])
    assert (pixels(png(figure)) != rendered).any() or len(families()) == 1


def test_file_names_are_drawn_next_to_digits(tmp_path):
    path = tmp_path / "三.png"
    Image.fromarray(IMAGES[0, ..., 0]).save(path)
    read = ImagePrediction(str(path), (Guess("3", 0.9),), None, IMAGES[0, ..., 0], (0, 0, 1, 1))
    assert pixels(png(image_prediction_grid([read], [str(digit) for digit in range(10)]))).std() > 5


def test_the_confusion_matrix_shows_its_counts():
    counts = metrics.confusion(LOGITS, LABELS)
    assert counts.tolist() == [[1, 1, 0], [1, 1, 0], [0, 1, 1]]
    names, other = drawable_labels("abc"), counts.copy()
    other[0, 2] = 7
    assert (pixels(png(confusion(counts, names))) != pixels(png(confusion(other, names)))).any()


def test_right_and_wrong_have_their_colors():
    image = pixels(png(confusion(np.array([[5, 0], [3, 5]]), drawable_labels("ab")))).reshape(-1, 3)
    for color, at_least in ((LIGHT.right, 0.3), (LIGHT.wrong, 0.15)):
        channels = [int(color[place:place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(image - channels).max(1) <= 2).mean() > at_least


def test_most_confident_errors():
    assert most_confident_errors(LABELS, LOGITS).tolist() == [3, 1, 5]
    assert most_confident_errors(LABELS, LOGITS, limit=1).tolist() == [3]
    shown = select_predictions(IMAGES, np.arange(6)[::-1], LABELS, LOGITS, [3])[0]
    assert (shown.index, shown.true, shown.predicted) == (2, 0, 1)
    assert shown.confidence == pytest.approx(1 / (1 + 2 * np.exp(-9)))
    np.testing.assert_array_equal(shown.image, IMAGES[2, ..., 0])


def test_softmax_of_large_logits():
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4, -1e4]])), [[0.5, 0.5, 0]])


@pytest.mark.parametrize("examples", [1, 31, 32, 1000])
def test_samples_are_spread_and_none_is_twice(examples):
    places = sample_positions(examples)
    assert len(set(places)) == len(places) == min(examples, 32)
    assert places[0] == 0 and places[-1] == examples - 1


def test_a_grid_shows_the_images():
    bright = np.full((1, 5, 5, 1), 255, np.uint8)
    logits = np.array([[1.0, 0.0]])
    grids = [pixels(png(prediction_grid(
        select_predictions(images, np.arange(1), np.zeros(1, int), logits, [0]),
        drawable_labels("ab"), "x")))
        for images in (bright, bright // 255)]
    assert (grids[1] < 9).all(-1).sum() > (grids[0] < 9).all(-1).sum() + 15_000


def test_filters_are_on_one_scale_around_zero_in_greyscale_too():
    filters = np.stack([np.full((3, 3), value, np.float32) for value in (-1, 0, 0.5, 1)])
    image = pixels(png(first_layer(filters))).reshape(-1, 3).astype(int)
    for color in WEIGHTS:
        channels = [int(color[place:place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(image - channels).max(1) <= 2).mean() > 0.1
    gray = [int(Image.new("RGB", (1, 1), color).convert("L").getpixel((0, 0)))
            for color in WEIGHTS]
    assert gray[0] + 60 < gray[1] < gray[2] - 60


def values_of(figure):
    """The axes of a figure of curves, and the values of its curves by label."""
    (axes,) = figure.axes
    return axes, {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def test_the_error_rate_is_on_a_logarithmic_axis():
    rows = [{"step": step, "train_loss": 1.0, "train_accuracy": accuracy}
            for step, accuracy in ((1, 0.55), (4, 0.9), (8, 1.0))]
    axes, values = values_of(curves(rows, result(test_accuracy=0.98), "error"))
    assert axes.get_yscale() == "log"
    assert values["training (running)"][:2] == pytest.approx([0.45, 0.1])
    assert values["test, at the end"] == pytest.approx([0.02])
    ticks = dict(zip(axes.get_yticks(), [text.get_text() for text in axes.get_yticklabels()],
                     strict=True))
    assert ticks[values["training (running)"][2]] == "0", "no error is below the smallest tick"
    assert {"2 %", "5 %", "10 %", "20 %"} <= set(ticks.values())


def test_values_that_hardly_differ_are_on_an_axis_from_zero():
    for what in ("loss", "error"):
        rows = [{"step": 8, "train_loss": 0.0900, "train_accuracy": 0.1167}]
        found = result(test_loss=0.0899, test_accuracy=0.1156, epochs=1.0)
        axes, _ = values_of(curves(rows, found, what))
        assert axes.get_yscale() == "linear" and axes.get_ylim()[0] == 0


@pytest.mark.parametrize("accuracies", [(0.1,), (0.2, 0.5, 0.9, 0.99), (0.99, 0.5, 0.1)])
def test_the_legend_covers_no_curve(accuracies):
    rows = [{"step": step, "train_loss": 2 - accuracy, "train_accuracy": accuracy,
             "validation_loss": 2 - accuracy, "validation_accuracy": accuracy}
            for step, accuracy in enumerate(accuracies, 1)]
    for what in ("loss", "error"):
        figure = curves(rows, result(), what)
        figure.draw_without_rendering()
        (axes,) = figure.axes
        legend = axes.get_legend().get_window_extent()
        assert legend.y0 >= axes.get_window_extent().y1
        assert axes._left_title.get_window_extent().x1 < legend.x0
        assert legend.x1 <= figure.bbox.x1


def test_a_forest_plot_explains_the_marks_that_it_has():
    def difference(mean, p):
        return Difference(mean, mean - 1, mean + 1, 3, p)

    rows = [ForestRow("base", "1 ± 2", None, (-1, 1)),
            ForestRow("worse", "1", difference(-3, 0.01), (-3,), 0.01),
            ForestRow("same", "1", difference(0.1, 0.9), (0.1,), 0.9),
            ForestRow("other", "1", Difference(1, None, None, 1, None), is_paired=False)]

    def words(*shown):
        figure = forest([rows[place] for place in shown], "$title", "axis", "mean ± sd")
        assert pixels(png(figure)).std() > 5
        return figure.texts[0].get_text().replace("\n", " ").split("; ")

    assert words(0, 1, 2, 3) == [
        "dots: seeds", "dots of a row without a diamond: its seeds around their mean",
        "diamonds: mean differences", "lines: 95 % intervals", "filled: p < 0.05 after Holm",
        "red: worse", "hollow: p ≥ 0.05 after Holm", "squares: evaluated on other images, no test"]
    assert words(1) == ["dots: seeds", "diamonds: mean differences", "lines: 95 % intervals",
                        "filled: p < 0.05 after Holm", "red: worse"]
    assert words(3) == ["squares: evaluated on other images, no test"]


@pytest.mark.parametrize(("count", "labels", "axis"), [
    (3, ["5", "6", "7"], "3 folds, the highest error rate first"),
    (40, [], "40 folds, the highest error rate first: 5, 6, 7, 8, 9, 10, 11, 12 …")])
def test_each_column_of_an_error_map_is_named_if_there_are_few(count, labels, axis):
    errors = np.arange(2 * count).reshape(count, 2)
    figure = error_map(
        np.arange(count) + 5, errors, np.full((count, 2), 100), drawable_labels("ab"), "fold")
    _, axes = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == labels
    assert axes.get_xlabel() == axis


def test_themes_differ_in_the_background():
    for theme, low, high in ((LIGHT, 240, 256), (DARK, 0, 40)):
        corner = pixels(png(confusion(np.eye(2, dtype=int), drawable_labels("ab"), theme)))[2, 2]
        assert (corner >= low).all() and (corner < high).all()


FILES = {f"figures/{name}.png" for name in ("loss", "error", "confusion", "mistakes", "samples")}


KINDS = {
    "plain": {},
    "two filters": {"filters": np.ones((2, 3, 3), np.float32)},
    "many filters": {"filters": np.zeros((200, 28, 28), np.float32)},
    "no errors": {"logits": np.eye(3)[LABELS]},
    "no opinion": {"logits": np.zeros((6, 3))},
    "no rows": {"rows": []},
    "one row": {"rows": [{"step": 8, "train_loss": 0.0, "train_accuracy": 1.0,
                          "validation_loss": 0.0, "validation_accuracy": 1.0}]},
    "one class": {"class_names": ("猫",), "labels": np.zeros(6, int), "logits": np.ones((6, 1))},
    "many classes": {"class_names": tuple(f"a rather long name {place}" for place in range(150)),
                     "logits": np.eye(150)[:6]},
    "no formulas": {"class_names": ("$x", r"$\frac{$", "$$")},
    "wide images": {"images": np.zeros((6, 1, 300, 1), np.uint8)},
    "one example": {
        "index": np.array([5]), "labels": np.array([1]), "logits": np.array([[0.0, 1, 0]])},
    "one step": {"result": result(test_loss=1e-9, epochs=0.01, steps=1, checkpoint_step=1)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_run_has_a_report(kind):
    changes = KINDS[kind]
    files = report(**changes).files()
    expected = FILES | {"report.html"}
    assert files.keys() == expected | ({"figures/filters.png"} if "filters" in changes else set())
    for name in files.keys() - {"report.html"}:
        assert pixels(files[name]).std() > 1, name
    assert files["report.html"].startswith(b"<!doctype html>")
