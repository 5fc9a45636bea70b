"""Loads a data set by its name, without an experiment."""

from flaxdigits.api.arguments import PathLike, path_text
from flaxdigits.api.console import make_console
from flaxdigits.api.experiment import validated
from flaxdigits.api.session import Session, Source
from flaxdigits.config import DataConfig, ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.models import MlpConfig


def dataset(
    name: str, *, folder: PathLike | None = None, image_size: int | None = None,
    data: Source = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None,
) -> Dataset:
    """Loads a data set: images, labels, class names, writers or other groups, and splits.

    Args:
      name: the value of `data.dataset`: `mnist`, `chinese_mnist`, `idx_files`, `image_folder`,
        `npz`, `tfds:NAME`, `arrays`, or the name of a data set that has been registered.
      folder: the value of `data.folder`: the folder of `idx_files` or `image_folder`, or the file
        of `npz`.
      image_size: the value of `data.image_size`, for `image_folder`.
      data: `real`, `synthetic` or `auto`, as for `train`; the `DataArrays` of `arrays`.
      raw_data_dir: the folder of the raw files, as for `train`.
      data_dir: the folder of prepared data, as for `train`.

    Raises:
      FlaxdigitsError: if there is no such data set, or its files are missing or damaged.
    """
    fields = DataConfig(
        name, split="kfold", folder=None if folder is None else path_text(folder, "folder"),
        image_size=image_size)
    config = validated(ExperimentConfig("dataset", MlpConfig(), fields))
    return Session(make_console(), data, raw_data_dir, data_dir).load(config)
