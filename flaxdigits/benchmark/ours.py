"""Our own train step, timed on request: `python -m flaxdigits.benchmark.ours chinese_cnn`.

Overrides may follow. Served as `flaxdigits.benchmark.peers` says, with the step's cost counted from
the layers and what a large matrix product reaches in the same process.
"""

import sys
import time

import jax
import jax.numpy as jnp

from flaxdigits.benchmark.peers import random_images, serve
from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.experiments import load_experiment
from flaxdigits.overrides import apply_overrides
from flaxdigits.reports.layers import list_layers
from flaxdigits.training import provenance
from flaxdigits.training.program import Program
from flaxdigits.training.run import Run

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


def noise(name: str, config: ExperimentConfig) -> Dataset:
    """A data set of random pixels, as many as the real one has."""
    images, labels, classes = random_images(name, config.train.batch_size)
    return Dataset(config.data.dataset, "noise", tuple(map(str, range(classes))), images, labels,
                   None, None, min(60_000, len(images)), "noise")


def main(name: str, overrides: list[str]) -> None:
    """Serves the timings of one experiment."""
    config = apply_overrides(load_experiment(name), overrides)
    run = Run(config, noise(name, config))
    program, order = Program(run, 1), run.order(0)

    def milliseconds(steps: int) -> float:
        steps = min(steps, run.steps_per_epoch)
        start = time.perf_counter()
        program([run], [order], [steps])
        return (time.perf_counter() - start) / steps * 1000

    milliseconds(1)
    serve({"batch_size": config.train.batch_size, "step_flops": step_flops(run),
           "product_flops": product_flops(), "device": provenance.device_name()}, milliseconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
