"""Loads the trained network of a run as an object."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from flaxdigits import metrics
from flaxdigits.api.arguments import PathLike
from flaxdigits.api.experiment import moved_data, open_run
from flaxdigits.api.session import Session, Source, check_devices
from flaxdigits.data.splits import split_indices
from flaxdigits.datasets import SPLITS
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.predict import frame_arrays
from flaxdigits.evaluation.trained import TrainedNetwork, load_network
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Network(TrainedNetwork):
    """A trained network with the folder of its run. Only `confusion` needs the data of the run.

    Attributes:
      folder: the run folder.
    """

    folder: RunFolder

    def frame(self, images: list[ArrayLike]) -> np.ndarray:
        """Frames images of any size and colors as the training images are.

        The method is that of `flaxdigits.predict` for files.

        Args:
          images: each [height, width] or [height, width, 3] uint8.

        Returns:
          The inputs of the network: [n, height, width, channels] uint8.

        Raises:
          FlaxdigitsError: naming the first image that cannot be framed, such as an empty one.
        """
        return frame_arrays(self, images)

    def predict(self, images: ArrayLike | list[ArrayLike]) -> np.ndarray:
        """Classifies images.

        Args:
          images: one array of images that are framed as the training images are, as for `logits`;
            or a list of arrays of any sizes, which are framed first, as by `frame`.

        Returns:
          [n] int32, indices into `class_names`.

        Raises:
          FlaxdigitsError: as `logits` and `frame` do.
        """
        inputs = self.frame(images) if isinstance(images, list) else images
        return self.logits(inputs).argmax(-1).astype(np.int32)

    @pinned_settings()
    def confusion(
        self, split: str = "test", *, data: Source = "auto", raw_data_dir: PathLike | None = None,
        data_dir: PathLike | None = None, data_folder: PathLike | None = None,
        data_indices: PathLike | None = None,
    ) -> np.ndarray:
        """Loads the data of the run, and counts the predictions of each class.

        The images are preprocessed as in training, even if `evaluate.preprocessing` differs.

        Args:
          split: `train`, `validation` or `test`.
          data: see `flaxdigits.evaluate`.
          raw_data_dir: the folder of the raw files.
          data_dir: the folder of prepared data.
          data_folder: the current folder of custom data that have moved.
          data_indices: the current path of an index file that has moved.

        Returns:
          [classes, classes] int64: in row i and column j the number of images of class i that were
          classified as j.

        Raises:
          FlaxdigitsError: if the split does not exist, or the data are not found or differ from the
            data of the run.
        """
        if split not in SPLITS:
            raise FlaxdigitsError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        config = apply_overrides(self.config, moved_data(data_folder, data_indices))
        session = Session.start([config], None, data, raw_data_dir, data_dir)
        dataset = session.load_for_run(config, self.folder)
        parts = split_indices(config.data, dataset)
        if split not in parts:
            raise FlaxdigitsError(
                f"{self.folder.path}: has no split {split!r}: data.split={config.data.split} "
                f"consists of {', '.join(parts)}")
        index = parts[split]
        return metrics.confusion(self.logits(dataset.images[index]), dataset.labels[index])


@pinned_settings()
def load(
    workdir: PathLike, checkpoint: str | int = "last", *, experiment: PathLike | None = None,
) -> Network:
    """Loads the trained network of a run. The data that it was trained on are not needed.

    Args:
      workdir: the run folder.
      checkpoint: `last`, `best` (by validation accuracy) or a step.
      experiment: the experiment file of the run, if it has custom components and the file with
        which it was trained is gone or has changed.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint, the checkpoint is damaged, or a custom
        component is not registered.
    """
    folder, config = open_run(workdir, experiment=experiment)
    check_devices()
    network = load_network(folder, config, str(checkpoint))
    return Network(**vars(network), folder=folder)
