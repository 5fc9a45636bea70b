"""Times the train step of flaxdigits.

    python -m flaxdigits.benchmark.ours mnist_cnn 70000 28 28 1 10 60000

The arguments after the name are the number of images of the data set, their height, width and
number of channels, the number of classes, and the number of official training examples (0 if there
is no official split). Overrides may follow; with `train.seeds_per_call=10` a step is one of each of
ten seeds, which are trained at the same time. The protocol is described in
`flaxdigits.benchmark.peers`. The first line also contains the FLOPs of a step, counted from the
layers, and the FLOP/s of a large matrix product in the same process.
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
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.program import StepRequest, TrainProgram
from flaxdigits.training.state import count_parameters

LARGE = {"cpu": 2048}  # rows and columns of the large matrices; 8192 on other platforms


def step_flops(experiment: Experiment) -> int:
    """Returns the FLOPs of the convolutions and matrix products of a train step.

    The forward pass, the gradient of the input and the gradient of the kernel cost the same. The
    gradient of the input of the first layer is not computed. A multiply-add counts as 2.
    """
    layers = list_layers(experiment.task.model, experiment.image_shape)
    costs = [layer.flops for layer in layers if layer.flops]
    return (3 * sum(costs) - costs[0]) * experiment.config.train.batch_size


def product_flops() -> float:
    """Returns the FLOP/s of a large float32 matrix product, the fastest of six."""
    size = LARGE.get(jax.default_backend(), 8192)
    matrix = jnp.ones((size, size))
    multiply = jax.jit(lambda a: a @ a).lower(matrix).compile()
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        multiply(matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def memory_bound(experiment: Experiment) -> int:
    """Returns an upper bound of the memory of a training process on the CPU, in bytes.

    It is the sum of the data, ten times the parameters, three times the activations of a batch,
    and 750 MB.
    """
    data, batch_size = experiment.dataset, experiment.config.train.batch_size
    layers = list_layers(experiment.task.model, experiment.image_shape)
    return (data.images.nbytes + data.labels.nbytes + 750_000_000
            + 10 * 4 * sum(layer.parameters for layer in layers)
            + 3 * batch_size * sum(layer.activation_bytes for layer in layers))


def random_data(
    config: ExperimentConfig, shape: tuple[int, ...], classes: int, official_train: int | None
) -> Dataset:
    """Creates a data set of random images by a hundred writers.

    Args:
      config: the config of the experiment, whose data set is replaced.
      shape: the shape of the images: (examples, height, width, channels).
      classes: the number of classes.
      official_train: see `Dataset`.
    """
    images, labels = noise(shape, classes)
    return Dataset(config.data.dataset, "noise", tuple(map(str, range(classes))), images, labels,
                   np.arange(len(labels)) % 100, None, official_train, "noise")


@pinned_settings()
def main(name: str, shape: list[int], overrides: list[str]) -> None:
    """Serves the timings of an experiment.

    Args:
      name: the name of the experiment.
      shape: number of images, height, width, number of channels, number of classes, size of the
        official training split.
      overrides: overrides of the config.
    """
    config = apply_overrides(load_experiment(name), overrides)
    *images, classes, official = shape
    experiment = Experiment.create(
        config, random_data(config, tuple(images), classes, official or None))
    seeds = config.train.seeds_per_call or 1
    program = TrainProgram(experiment, seeds)
    seeds = min(seeds, program.runs_per_call)  # as many as fit into memory
    states = [experiment.initial_state() for _ in range(seeds)]
    order, parameters = experiment.epoch_indices(0), count_parameters(states[0].params)

    def milliseconds(steps: int) -> float:
        nonlocal states
        steps = min(steps, experiment.steps_per_epoch)
        start = time.perf_counter()
        requests = [StepRequest(seed, 0, state, order, steps)
                    for seed, state in enumerate(states, config.seed)]
        output = jax.block_until_ready(
            program.steps(*program.arguments(requests, [steps] * seeds)))
        seconds = time.perf_counter() - start
        states = [state for state, _ in program.results(requests, output)]
        return seconds / steps * 1000

    milliseconds(1)
    serve({"batch_size": config.train.batch_size, "steps_per_epoch": experiment.steps_per_epoch,
           "seeds": seeds, "examples": len(experiment.splits["train"]), "parameters": parameters,
           "memory_bound": memory_bound(experiment), "step_flops": seeds * step_flops(experiment),
           "product_flops": product_flops(), "device": provenance.device_name()}, milliseconds)


if __name__ == "__main__":
    main(sys.argv[1], [int(size) for size in sys.argv[2:8]], sys.argv[8:])
