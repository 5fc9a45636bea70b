"""Sheets of small images with words below them: predictions, mistakes, the data itself."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax

from flaxdigits.reports.figures import LIGHT, Theme
from flaxdigits.reports.fonts import Labels

COLUMNS = 8
MOST_TILES = 32
MOST_CLASSES = 60  # of a sheet with a line for each
INCHES = 0.95  # of a tile


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
      image: [height, width] or, of three channels, [height, width, 3] uint8.
      true: its class.
      predicted: the class that the network takes it for.
      confidence: of that class, the softmax of the logits.
      row: of the data set.
    """

    image: np.ndarray
    true: int
    predicted: int
    confidence: float
    row: int


def drawable(image: np.ndarray) -> np.ndarray:
    """Returns an image as it is drawn: three channels as colours, others as their mean.

    Args:
      image: [height, width, channels].

    Returns:
      [height, width] or [height, width, 3].
    """
    if image.shape[-1] == 1:
        return image[..., 0]
    return image if image.shape[-1] == 3 else image.mean(-1)


def predictions(
    images: np.ndarray, index: np.ndarray, labels: np.ndarray, logits: np.ndarray,
    chosen: Sequence[int],
) -> list[Prediction]:
    """The chosen examples of a split.

    Args:
      images: [all, height, width, channels] uint8, of the whole data set.
      index: [examples] int, where the split's examples are among them.
      labels: [examples] int.
      logits: [examples, classes] float.
      chosen: places within the split.
    """
    confidence = softmax(logits.astype(np.float64), -1)
    predicted = logits.argmax(-1)
    return [
        Prediction(drawable(images[index[place]]), int(labels[place]), int(predicted[place]),
                   float(confidence[place, predicted[place]]), int(index[place]))
        for place in chosen]


def worst_mistakes(labels: np.ndarray, logits: np.ndarray, most: int = MOST_TILES) -> np.ndarray:
    """Places of the wrong predictions, the most confident first."""
    wrong = np.flatnonzero(logits.argmax(-1) != labels)
    order = np.argsort(-softmax(logits.astype(np.float64), -1)[wrong].max(-1), kind="stable")
    return wrong[order][:most]


def samples(examples: int, most: int = MOST_TILES) -> np.ndarray:
    """Places spread evenly over a split, so that the choice favours nothing."""
    return np.unique(np.linspace(0, examples - 1, min(most, examples)).astype(int))


def prediction_sheet(
    shown: Sequence[Prediction], labels: Labels, title: str, theme: Theme = LIGHT
) -> Figure:
    """Images with what they were taken for, how confidently, and if that is wrong, what they are.

    Args:
      shown: none of them is a sheet that says so.
      labels: of the classes.
      title: without characters that matplotlib's own font lacks.
      theme: colours.
    """
    figure, axes = _sheet(COLUMNS, max(1, -(-len(shown) // COLUMNS)), 1.5, title, theme)
    for place, one in enumerate(shown):
        column, top = place % COLUMNS, place // COLUMNS * 1.5
        _tile(axes, one.image, column, top, 0, 255)
        is_right = one.predicted == one.true
        lines = [(f"{labels.names[one.predicted]}  {one.confidence:.1%}",
                  theme.right if is_right else theme.wrong)]
        if not is_right:
            lines.append((f"is {labels.names[one.true]}", theme.text))
        for line, (words, colour) in enumerate(lines):
            axes.text(column + 0.46, top + 1.08 + 0.19 * line, words, color=colour, ha="center",
                      va="center", font=labels.font, fontsize=min(9, 120 / len(words)),
                      parse_math=False)
    return figure


def data_sheet(
    images: np.ndarray, labels: np.ndarray, names: Labels, title: str, theme: Theme = LIGHT
) -> Figure:
    """A line of images for each class, of more than 60 the first ones.

    Args:
      images: [examples, height, width, channels] float, as a network sees them: the smallest
        value of all is black, the largest white.
      labels: [examples] int.
      names: of the classes.
      title: without characters that matplotlib's own font lacks.
      theme: colours.
    """
    columns = 12
    shown = np.unique(labels)[:MOST_CLASSES]
    figure, axes = _sheet(columns, len(shown), 1.0, title, theme, margin=0.7)
    for line, label in enumerate(shown):
        words = names.names[label]
        axes.text(-0.12, line + 0.46, words, ha="right", va="center", font=names.font,
                  fontsize=min(11, 60 / len(words)), color=theme.text, parse_math=False)
        for column, place in enumerate(np.flatnonzero(labels == label)[:columns]):
            _tile(axes, drawable(images[place]), column, line, images.min(), images.max())
    return figure


def _sheet(
    columns: int, lines: int, pitch: float, title: str, theme: Theme, margin: float = 0.0
) -> tuple[Figure, Axes]:
    """Axes whose unit is a tile, in a figure that fits them; `margin` in tiles, on the left."""
    head = 0.45
    wide, high = columns + margin + 0.1, lines * pitch + 0.1
    figure = Figure(figsize=(wide * INCHES, high * INCHES + head), facecolor=theme.background)
    share = high * INCHES / (high * INCHES + head)
    axes = figure.add_axes((0, 0, 1, share))
    axes.set_axis_off()
    axes.set_xlim(-margin - 0.1, columns)
    axes.set_ylim(high - 0.1, -0.1 + 0.02)
    figure.text(0.1 / wide, 1 - 0.2 / figure.get_figheight(), title, fontsize=10.5, weight="bold",
                color=theme.text, va="center")
    return figure, axes


def _tile(
    axes: Axes, image: np.ndarray, left: float, top: float, darkest: float, lightest: float
) -> None:
    """Draws what `drawable` returns into the unit square at (left, top), proportions kept."""
    height, width = np.array(image.shape[:2]) / max(image.shape[:2]) * 0.92
    left, top = left + (0.92 - width) / 2, top + (0.92 - height) / 2
    if image.ndim == 3:
        image = np.clip((image - darkest) / max(lightest - darkest, 1e-9), 0, 1)
    axes.imshow(image, cmap="gray", vmin=darkest, vmax=max(lightest, darkest + 1e-9),
                interpolation="nearest", extent=(left, left + width, top + height, top),
                aspect="auto")
