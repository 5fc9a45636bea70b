"""The output of `--mode=predict`: a table, and a figure of the images with the network's input."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.table import Table
from rich.text import Text

from flaxdigits.data.photos import read_photo
from flaxdigits.evaluation.predict import GUESSES, ImagePrediction
from flaxdigits.reports.figures import LIGHT, Theme
from flaxdigits.reports.fonts import MAX_NAME_LENGTH, drawable_labels

MAX_IMAGES = 24
COLUMNS = 4
TILE = 1.15  # inches
LINE = 0.17  # inches


def image_prediction_table(predictions: Sequence[ImagePrediction]) -> Table:
    """Returns a table with a row for each image: the most probable classes in descending order."""
    table = Table()
    table.add_column("image", overflow="fold")
    for heading in ("prediction", "second", "third")[:GUESSES]:
        table.add_column(heading, justify="right")
    for prediction in predictions:
        cells = [f"{guess.class_name}  {guess.confidence:6.1%}" for guess in prediction.guesses]
        table.add_row(Text(prediction.file), *map(Text, cells or ["not read"]))
    return table


def image_prediction_grid(
    predictions: Sequence[ImagePrediction], class_names: Sequence[str], theme: Theme = LIGHT
) -> Figure:
    """Draws images with a box around the character, each next to the input of the network.

    Args:
      predictions: the predictions; the first 24 whose files could be read are drawn.
      class_names: the names of the network's classes.
      theme: the colors.
    """
    read = [prediction for prediction in predictions if prediction.error is None]
    shown = read[:MAX_IMAGES]
    names = drawable_labels(class_names)
    readable = dict(zip(class_names, names.names, strict=True))
    columns, lines = min(COLUMNS, max(1, len(shown))), max(1, -(-len(shown) // COLUMNS))
    wide, high = 2 * TILE + 0.25, TILE + (1 + GUESSES) * LINE + 0.2
    figure = Figure(figsize=(max(columns * wide, 4.6) + 0.1, lines * high + 0.4),
                    facecolor=theme.background)
    axes = figure.add_axes((0, 0, 1, 1))  # in inches, from the upper left corner
    axes.set_xlim(0, figure.get_figwidth())
    axes.set_ylim(figure.get_figheight(), 0)
    axes.set_axis_off()
    more = f", the first {len(shown)} of {len(read)}" if len(read) > len(shown) else ""
    axes.text(0.12, 0.2, f"Images and network inputs{more}", fontsize=10.5,
              weight="bold", color=theme.text, va="center")
    for position, prediction in enumerate(shown):
        left, top = position % columns * wide + 0.12, position // columns * high + 0.42
        axes.text(left, top, _shorten(Path(prediction.file).name), fontsize=7.5,
                  color=theme.muted, va="center", parse_math=False)
        top += 0.6 * LINE
        pixels = read_photo(Path(prediction.file))
        height, width = (side / max(pixels.shape[:2]) * TILE for side in pixels.shape[:2])
        x, y = left + (TILE - width) / 2, top + (TILE - height) / 2
        axes.imshow(pixels, extent=(x, x + width, y + height, y), aspect="auto")
        assert prediction.box is not None and prediction.network_input is not None  # was read
        start, upper, end, lower = prediction.box
        axes.add_patch(Rectangle(
            (x + start * width, y + upper * height), (end - start) * width,
            (lower - upper) * height, fill=False, edgecolor=theme.wrong, linewidth=1))
        axes.imshow(prediction.network_input, cmap="gray", vmin=0, vmax=255,
                    interpolation="nearest",
                    extent=(left + TILE + 0.05, left + 2 * TILE + 0.05, top + TILE, top),
                    aspect="auto")
        for line, guess in enumerate(prediction.guesses):
            axes.text(left + TILE + 0.05, top + TILE + (line + 0.75) * LINE,
                      f"{readable[guess.class_name]}   {guess.confidence:.1%}", font=names.font,
                      fontsize=9 if line == 0 else 7.5, va="center", parse_math=False,
                      color=theme.text if line == 0 else theme.muted)
    return figure


def _shorten(name: str) -> str:
    name = name.encode("utf-8", "backslashreplace").decode()  # a file name may not be Unicode
    if len(name) <= 2 * MAX_NAME_LENGTH:
        return name
    return f"{name[:MAX_NAME_LENGTH]}…{name[-MAX_NAME_LENGTH:]}"
