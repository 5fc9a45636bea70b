"""What a network read in images: as a table, and as pictures beside what it saw."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.table import Table
from rich.text import Text

from flaxdigits.data.photos import read_photo
from flaxdigits.evaluation.predict import GUESSES, Reading
from flaxdigits.reports.figures import LIGHT, Theme
from flaxdigits.reports.fonts import LONGEST, legible

MOST = 24  # images of a sheet
COLUMNS = 4
TILE = 1.15  # inches
LINE = 0.17


def reading_table(readings: Sequence[Reading]) -> Table:
    """A row for each image: its guesses, the likeliest first, with their confidence."""
    table = Table()
    table.add_column("image", overflow="fold")
    for heading in ("read as", "or", "or")[:GUESSES]:
        table.add_column(heading, justify="right")
    for reading in readings:
        cells = [f"{guess.class_name}  {guess.confidence:6.1%}" for guess in reading.guesses]
        table.add_row(Text(reading.file), *map(Text, cells or ["not read"]))
    return table


def reading_sheet(
    readings: Sequence[Reading], class_names: Sequence[str], theme: Theme = LIGHT
) -> Figure:
    """The images that were read, the character framed, beside what the network saw of them.

    Args:
      readings: of more than 24 that were read the first ones.
      class_names: of the network.
      theme: colours.
    """
    read = [reading for reading in readings if reading.seen is not None]
    shown = read[:MOST]
    names = legible(class_names)
    drawable = dict(zip(class_names, names.names, strict=True))
    columns, lines = min(COLUMNS, max(1, len(shown))), max(1, -(-len(shown) // COLUMNS))
    wide, high = 2 * TILE + 0.25, TILE + (1 + GUESSES) * LINE + 0.2
    figure = Figure(figsize=(max(columns * wide, 4.6) + 0.1, lines * high + 0.4),
                    facecolor=theme.background)
    axes = figure.add_axes((0, 0, 1, 1))  # in inches, from the upper left corner
    axes.set_xlim(0, figure.get_figwidth())
    axes.set_ylim(figure.get_figheight(), 0)
    axes.set_axis_off()
    more = f", the first {len(shown)} of {len(read)}" if len(read) > len(shown) else ""
    axes.text(0.12, 0.2, f"Each image, and what the network saw{more}", fontsize=10.5,
              weight="bold", color=theme.text, va="center")
    for place, reading in enumerate(shown):
        left, top = place % columns * wide + 0.12, place // columns * high + 0.42
        axes.text(left, top, _cut(Path(reading.file).name), fontsize=7.5, color=theme.muted,
                  va="center", parse_math=False)
        top += 0.6 * LINE
        pixels = read_photo(Path(reading.file))
        height, width = (side / max(pixels.shape[:2]) * TILE for side in pixels.shape[:2])
        x, y = left + (TILE - width) / 2, top + (TILE - height) / 2
        axes.imshow(pixels, extent=(x, x + width, y + height, y), aspect="auto")
        start, upper, end, lower = reading.box
        axes.add_patch(Rectangle(
            (x + start * width, y + upper * height), (end - start) * width,
            (lower - upper) * height, fill=False, edgecolor=theme.wrong, linewidth=1))
        axes.imshow(reading.seen, cmap="gray", vmin=0, vmax=255, interpolation="nearest",
                    extent=(left + TILE + 0.05, left + 2 * TILE + 0.05, top + TILE, top),
                    aspect="auto")
        for line, guess in enumerate(reading.guesses):
            axes.text(left + TILE + 0.05, top + TILE + (line + 0.75) * LINE,
                      f"{drawable[guess.class_name]}   {guess.confidence:.1%}", font=names.font,
                      fontsize=9 if line == 0 else 7.5, va="center", parse_math=False,
                      color=theme.text if line == 0 else theme.muted)
    return figure


def _cut(name: str) -> str:
    name = name.encode("utf-8", "backslashreplace").decode()  # it may be no Unicode
    return name if len(name) <= 2 * LONGEST else f"{name[:LONGEST]}…{name[-LONGEST:]}"
