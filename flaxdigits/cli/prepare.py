"""--mode=prepare: reads, checks and prepares an experiment's data, and nothing else."""

from flaxdigits.cli.context import load_data
from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.splits import split_indices


def run(options: Options, config: ExperimentConfig) -> int:
    """Prints what there is; returns the exit status."""
    dataset = load_data(config, options)
    height, width = dataset.images.shape[1:3]
    print(f"{dataset.name} ({dataset.source}): {len(dataset.labels)} images of {height}x{width}, "
          f"{len(dataset.class_names)} classes, fingerprint {dataset.fingerprint}")
    sizes = {name: len(rows) for name, rows in split_indices(config.data, dataset).items()}
    print(f"split {config.data.split}: "
          + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    return 0
