"""--mode=summary: the layers of an experiment's network."""

from rich.console import Console

from flaxdigits.cli.context import load_data
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.builders import BUILDERS
from flaxdigits.models import build_model
from flaxdigits.reports.layers import layer_table, list_layers


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints the table; returns the exit status."""
    builder = BUILDERS.get(config.data.dataset)
    if builder is not None:
        shape, classes = (*builder.image_size, 1), len(builder.class_names)
    else:
        dataset = load_data(config, options)
        shape, classes = dataset.images.shape[1:], len(dataset.class_names)
    layers = list_layers(build_model(config.model, classes), shape)
    console = Console(highlight=False)
    console.print(layer_table(config.model.name, layers))
    return 0
