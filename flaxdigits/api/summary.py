"""Lists the layers of the network of an experiment."""

import dataclasses

from rich.jupyter import JupyterMixin
from rich.table import Table

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.experiment import validated
from flaxdigits.api.session import Session, Source
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.builders import BUILDERS
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.models import build_model
from flaxdigits.reports.layers import Layer, layer_table, list_layers


@dataclasses.dataclass(frozen=True)
class Summary(JupyterMixin):
    """The layers of a network, shown as a table in a notebook or by rich's `print`.

    Attributes:
      model: the name of the model.
      layers: the layers in the order of their calls.
    """

    model: str
    layers: list[Layer]

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(layer.parameters for layer in self.layers)

    def __rich__(self) -> Table:
        return layer_table(self.model, self.layers)


@pinned_settings()
def summary(
    config: ExperimentConfig, *, data: Source = "auto", raw_data_dir: PathLike | None = None,
    data_dir: PathLike | None = None,
) -> Summary:
    """Lists the layers with output shapes, parameters, FLOPs and memory of the activations.

    Args:
      config: the config of the experiment.
      data: See `train`. Only custom data are loaded, to find out the image size.
      raw_data_dir: See `train`.
      data_dir: See `train`.

    Raises:
      FlaxdigitsError: if the config is not valid, or the data are not found.
    """
    config = validated(config)
    session = Session.start([], None, data, raw_data_dir, data_dir)
    builder = BUILDERS.get(config.data.dataset)
    if builder is not None:
        shape, classes = (*builder.image_size, 1), len(builder.class_names)
    else:
        dataset = session.load(config)
        shape, classes = dataset.images.shape[1:], len(dataset.class_names)
    return Summary(config.model.name, list_layers(build_model(config.model, classes), shape))
