"""Our own train step, timed on request.

    python -m flaxdigits.benchmark.ours mnist_cnn 70000 28 28 1 10 60000

The numbers are the images of the data set, their height and width, the classes, and how many
images are the official training part, 0 where there is none; overrides may follow. Served as
`flaxdigits.benchmark.peers` says, with the step's cost counted from the layers and what a large
matrix product reaches in the same process.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from flaxdigits.benchmark.peers import noise, serve
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.experiments import load_experiment
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.overrides import apply_overrides
from flaxdigits.reports.layers import list_layers
from flaxdigits.training import provenance
from flaxdigits.training.program import Program
from flaxdigits.training.run import Run
from flaxdigits.training.state import count_parameters

LARGE = {"cpu": 2048}  # rows and columns of the large product; elsewhere 8192


def step_flops(run: Run) -> int:
    """Of a train step's convolutions and matrix products, a multiply-add as 2.

    Each costs the same forward, back to its input and back to its kernel; the first layer's input
    is the images, which need no gradient.
    """
    layers = list_layers(run.task.model, run.dataset.images.shape[1:])
    costs = [layer.flops for layer in layers if layer.flops]
    return (3 * sum(costs) - costs[0]) * run.config.train.batch_size


def product_flops() -> float:
    """Operations a second of a large float32 matrix product, the best of five."""
    size = LARGE.get(jax.default_backend(), 8192)
    matrix = jnp.ones((size, size))
    multiply = jax.jit(lambda a: a @ a).lower(matrix).compile()
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        multiply(matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def memory_bound(run: Run) -> int:
    """Bytes that a process which does its train steps is to stay under on the CPU.

    The data, ten times the parameters, three times the activations of a batch, and 750 MB.
    """
    data, batch_size = run.dataset, run.config.train.batch_size
    layers = list_layers(run.task.model, data.images.shape[1:])
    return (data.images.nbytes + data.labels.nbytes + 750_000_000
            + 10 * 4 * sum(layer.parameters for layer in layers)
            + 3 * batch_size * sum(layer.activation_bytes for layer in layers))


def random_data(
    config: ExperimentConfig, shape: tuple[int, ...], classes: int, official_train: int | None
) -> Dataset:
    """Random pixels in the place of the config's data set, by a hundred writers.

    Args:
      config: of the experiment.
      shape: of the images: (examples, height, width, channels).
      classes: how many there are.
      official_train: as of `Dataset`.
    """
    images, labels = noise(shape, classes)
    return Dataset(config.data.dataset, "noise", tuple(map(str, range(classes))), images, labels,
                   np.arange(len(labels)) % 100, None, official_train, "noise")


@pinned_settings()
def main(name: str, shape: list[int], overrides: list[str]) -> None:
    """Serves the timings of one experiment.

    Args:
      name: of the experiment.
      shape: of the data: images, height, width, channels, classes, images of the official training
        part.
      overrides: of the config.
    """
    config = apply_overrides(load_experiment(name), overrides)
    *images, classes, official = shape
    run = Run(config, random_data(config, tuple(images), classes, official or None))
    program, order = Program(run, 1), run.order(0)

    def milliseconds(steps: int) -> float:
        steps = min(steps, run.steps_per_epoch)
        start = time.perf_counter()
        program([run], [order], [steps])
        return (time.perf_counter() - start) / steps * 1000

    milliseconds(1)
    serve({"batch_size": config.train.batch_size, "steps_per_epoch": run.steps_per_epoch,
           "examples": len(run.splits["train"]), "parameters": count_parameters(run.state.params),
           "memory_bound": memory_bound(run), "step_flops": step_flops(run),
           "product_flops": product_flops(), "device": provenance.device_name()}, milliseconds)


if __name__ == "__main__":
    main(sys.argv[1], [int(size) for size in sys.argv[2:8]], sys.argv[8:])
