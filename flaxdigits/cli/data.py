"""--mode=data: what an experiment trains on, as its network sees it."""

from rich.console import Console

from flaxdigits.cli.context import load_data, run_folder_path
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.splits import split_indices
from flaxdigits.reports.data import class_table, writer_lines
from flaxdigits.reports.figures import png
from flaxdigits.reports.fonts import legible
from flaxdigits.reports.result import tell_of_drawn_data
from flaxdigits.reports.sheets import data_sheet
from flaxdigits.training.first_inputs import first_inputs
from flaxdigits.training.run_folder import RunFolder

IMAGES_PER_CLASS = 40  # looked through for a line of each class
SHEET = "figures/data.png"


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints the counts and where the sheet is; returns the exit status."""
    workdir = run_folder_path(options, config)
    dataset = load_data(config, options)
    splits = split_indices(config.data, dataset)
    classes = len(dataset.class_names)
    images, labels = first_inputs(config, dataset, splits["train"], IMAGES_PER_CLASS * classes)
    sheet = data_sheet(
        images, labels, legible(dataset.class_names),
        f"The first training images as the network sees them, {images.min():.3g} (black) to "
        f"{images.max():.3g} (white)")
    RunFolder(workdir).write(SHEET, png(sheet))

    console = Console(highlight=False, soft_wrap=True)
    tell_of_drawn_data(console, dataset.source)
    height, width = dataset.images.shape[1:3]
    console.print(f"{dataset.name} ({dataset.source}), split {config.data.split}: images of "
                  f"{height}x{width}, {classes} classes")
    console.print(class_table(dataset.class_names, dataset.labels, splits))
    if dataset.writers is not None:
        for line in writer_lines(dataset.writers, splits):
            console.print(line)
    changes = config.data.augmentation
    console.print(f"augmentation: rotation {changes.rotation:g} degrees, zoom {changes.zoom:g}, "
                  f"shift {changes.shift:g}; preprocessing: {config.data.preprocessing}")
    console.print(f"sheet: {workdir / SHEET}")
    return 0
