"""Grids of small images with captions: predictions, errors, training images."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax

from flaxdigits.reports.figures import LIGHT, Theme
from flaxdigits.reports.fonts import Labels

COLUMNS = 8
MAX_TILES = 32
MAX_CLASSES = 60  # rows of a grid of classes
INCHES = 0.95  # size of a tile


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one example of a data set.

    Attributes:
      image: [height, width] uint8, or [height, width, 3] uint8 for images with three channels.
      true: the label.
      predicted: the predicted class.
      confidence: the probability of the predicted class, the softmax of the logits.
      index: the index of the example in the data set.
    """

    image: np.ndarray
    true: int
    predicted: int
    confidence: float
    index: int


def to_drawable(image: np.ndarray) -> np.ndarray:
    """Returns an image as matplotlib draws it: three channels as colors, others as their mean.

    Args:
      image: [height, width, channels].

    Returns:
      [height, width] or [height, width, 3].
    """
    if image.shape[-1] == 1:
        return image[..., 0]
    return image if image.shape[-1] == 3 else image.mean(-1)


def select_predictions(
    images: np.ndarray, index: np.ndarray, labels: np.ndarray, logits: np.ndarray,
    chosen: Sequence[int] | np.ndarray,
) -> list[Prediction]:
    """Returns the predictions for selected examples of a split.

    Args:
      images: [all examples, height, width, channels] uint8, the images of the complete data set.
      index: [examples] int, the indices of the split's examples in the data set.
      labels: [examples] int.
      logits: [examples, classes] float.
      chosen: the positions of the selected examples in the split.
    """
    confidence = softmax(logits.astype(np.float64), -1)
    predicted = logits.argmax(-1)
    return [
        Prediction(to_drawable(images[index[position]]), int(labels[position]),
                   int(predicted[position]), float(confidence[position, predicted[position]]),
                   int(index[position]))
        for position in chosen]


def most_confident_errors(
    labels: np.ndarray, logits: np.ndarray, limit: int = MAX_TILES
) -> np.ndarray:
    """Returns the positions of at most `limit` wrong predictions, the most confident first."""
    wrong = np.flatnonzero(logits.argmax(-1) != labels)
    order = np.argsort(-softmax(logits.astype(np.float64), -1)[wrong].max(-1), kind="stable")
    return wrong[order][:limit]


def sample_positions(examples: int, limit: int = MAX_TILES) -> np.ndarray:
    """Returns at most `limit` positions at even intervals of a split."""
    return np.unique(np.linspace(0, examples - 1, min(limit, examples)).astype(int))


def prediction_grid(
    shown: Sequence[Prediction], labels: Labels, title: str, theme: Theme = LIGHT
) -> Figure:
    """Draws images with their predicted class and its probability, and the label if it differs.

    Args:
      shown: the predictions to draw; may be empty.
      labels: the names of the classes.
      title: the title.
      theme: the colors.
    """
    figure, axes = _grid(COLUMNS, max(1, -(-len(shown) // COLUMNS)), 1.5, title, theme)
    for position, prediction in enumerate(shown):
        column, top = position % COLUMNS, position // COLUMNS * 1.5
        _tile(axes, prediction.image, column, top, 0, 255)
        is_correct = prediction.predicted == prediction.true
        lines = [(f"{labels.names[prediction.predicted]}  {prediction.confidence:.1%}",
                  theme.right if is_correct else theme.wrong)]
        if not is_correct:
            lines.append((f"is {labels.names[prediction.true]}", theme.text))
        for line, (words, color) in enumerate(lines):
            axes.text(column + 0.46, top + 1.08 + 0.19 * line, words, color=color, ha="center",
                      va="center", font=labels.font, fontsize=min(9, 120 / len(words)),
                      parse_math=False)
    return figure


def class_grid(
    images: np.ndarray, labels: np.ndarray, names: Labels, title: str, theme: Theme = LIGHT
) -> Figure:
    """Draws a row of images for each class, of at most 60 classes.

    Args:
      images: [examples, height, width, channels] float, after preprocessing. The smallest value of
        all images is drawn black, the largest white.
      labels: [examples] int.
      names: the names of the classes.
      title: the title.
      theme: the colors.
    """
    columns = 12
    shown = np.unique(labels)[:MAX_CLASSES]
    figure, axes = _grid(columns, len(shown), 1.0, title, theme, margin=0.7)
    for line, label in enumerate(shown):
        words = names.names[label]
        axes.text(-0.12, line + 0.46, words, ha="right", va="center", font=names.font,
                  fontsize=min(11, 60 / len(words)), color=theme.text, parse_math=False)
        for column, position in enumerate(np.flatnonzero(labels == label)[:columns]):
            _tile(axes, to_drawable(images[position]), column, line, images.min(), images.max())
    return figure


def _grid(
    columns: int, lines: int, pitch: float, title: str, theme: Theme, margin: float = 0.0
) -> tuple[Figure, Axes]:
    """Creates a figure with axes whose unit is a tile; `margin` is the left margin in tiles."""
    head = 0.45
    wide, high = columns + margin + 0.1, lines * pitch + 0.1
    figure = Figure(figsize=(wide * INCHES, high * INCHES + head), facecolor=theme.background)
    share = high * INCHES / (high * INCHES + head)
    axes = figure.add_axes((0, 0, 1, share))
    axes.set_axis_off()
    axes.set_xlim(-margin - 0.1, columns)
    axes.set_ylim(high - 0.1, -0.1 + 0.02)
    figure.text(0.1 / wide, 1 - 0.2 / figure.get_figheight(), title, fontsize=10.5, weight="bold",
                color=theme.text, va="center", parse_math=False)
    return figure, axes


def _tile(
    axes: Axes, image: np.ndarray, left: float, top: float, darkest: float, lightest: float
) -> None:
    """Draws an image that `to_drawable` returned into the unit square at (left, top)."""
    height, width = np.array(image.shape[:2]) / max(image.shape[:2]) * 0.92
    left, top = left + (0.92 - width) / 2, top + (0.92 - height) / 2
    if image.ndim == 3:
        image = np.clip((image - darkest) / max(lightest - darkest, 1e-9), 0, 1)
    axes.imshow(image, cmap="gray", vmin=darkest, vmax=max(lightest, darkest + 1e-9),
                interpolation="nearest", extent=(left, left + width, top + height, top),
                aspect="auto")
