"""Prepares the data of an experiment, and draws a preview of them."""

from pathlib import Path

from rich.console import Console

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.console import make_console, print_table
from flaxdigits.api.experiment import validated
from flaxdigits.api.session import Session, Source, output_folder
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.reports.data import class_table, writer_lines
from flaxdigits.reports.figures import png
from flaxdigits.reports.fonts import drawable_labels
from flaxdigits.reports.image_grids import class_grid
from flaxdigits.reports.result import data_name, print_synthetic_data_notice
from flaxdigits.training.first_inputs import first_inputs
from flaxdigits.training.run_folder import RunFolder

IMAGES_PER_CLASS = 40  # number of images to load for each row of the preview, on average
PREVIEW = "figures/data.png"


def prepare(
    config: ExperimentConfig, *, data: Source = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None, console: Console | None = None,
) -> Dataset:
    """Downloads, verifies and prepares the data of an experiment.

    Args:
      config: the config of the experiment.
      data: See `train`.
      raw_data_dir: See `train`.
      data_dir: See `train`.
      console: See `train`.

    Returns:
      The data set, in memory.

    Raises:
      FlaxdigitsError: if the data are not found, are damaged, or the prepared data cannot be
        written.
    """
    config = validated(config)
    console = console or make_console()
    dataset = Session(console, data, raw_data_dir, data_dir).load(config)
    title = data_name(dataset.name, dataset.source, config.data.folder)
    console.print(
        f"{title}: {len(dataset.labels):,} images of {dataset.size()}, "
        f"{len(dataset.class_names)} classes, fingerprint {dataset.fingerprint}")
    sizes = {name: len(rows) for name, rows in split_indices(config.data, dataset).items()}
    console.print(f"split {config.data.split}: "
                  + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    return dataset


@pinned_settings()
def preview_data(
    config: ExperimentConfig, workdir: PathLike | None = None, *, data: Source = "auto",
    raw_data_dir: PathLike | None = None, data_dir: PathLike | None = None,
    console: Console | None = None,
) -> Path:
    """Saves a grid of preprocessed training images of each class.

    Also prints, for every split, the number of images of each class and the number of writers.

    Args:
      config: the config of the experiment.
      workdir: the folder of `figures/data.png`; None: `runs/<experiment>`.
      data: See `train`.
      raw_data_dir: See `train`.
      data_dir: See `train`.
      console: See `train`.

    Returns:
      The path of the PNG file.

    Raises:
      FlaxdigitsError: if the data are not found, or the file cannot be written.
    """
    config = validated(config)
    folder = output_folder(workdir, config.experiment)
    session = Session.start([], console, data, raw_data_dir, data_dir)
    console, dataset = session.console, session.load(config)
    splits = split_indices(config.data, dataset)
    title = data_name(dataset.name, dataset.source, config.data.folder)
    classes = len(dataset.class_names)
    with session.progress.stage("drawing the images"):
        images, labels = first_inputs(
            config, dataset, splits["train"], IMAGES_PER_CLASS * classes)
        grid = class_grid(
            images, labels, drawable_labels(dataset.class_names),
            f"{title}: training images after preprocessing, {images.min():.3g} (black) to "
            f"{images.max():.3g} (white)")
        RunFolder(folder).write(PREVIEW, png(grid))

    print_synthetic_data_notice(console, dataset.source)
    console.print(f"{title}, split {config.data.split}: "
                  f"{dataset.size()} images, {classes} classes")
    print_table(console, class_table(dataset.class_names, dataset.labels, splits))
    if dataset.writers is not None:
        for line in writer_lines(dataset.writers, splits):
            console.print(line)
    augmentation = ", ".join(map(str, config.data.augmentation)) or "none"
    console.print(f"augmentation: {augmentation}; preprocessing: {config.data.preprocessing}")
    console.print(f"preview: {folder / PREVIEW}")
    return folder / PREVIEW
