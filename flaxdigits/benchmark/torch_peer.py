"""Times the networks of the experiments in PyTorch, with the batches and optimizers of flaxdigits.

    python -m flaxdigits.benchmark.torch_peer chinese_cnn 32

A third argument is the precision: `fp32`, `tf32` (on a GPU), or `bf16` for `torch.autocast` in
bfloat16. It times the fastest combination of memory layout and execution: eager, compiled, or, on a
GPU, a CUDA graph of a whole step, eager or compiled. The protocol is described in
`flaxdigits.benchmark.peers`. The images are in memory as one tensor and are shuffled for every
timing.
"""

import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn

from flaxdigits.benchmark.peers import MAX_STEPS, THREADS, fastest, random_images, serve


def conv(inputs: int, outputs: int, size: int, padding: int = 0) -> list[nn.Module]:
    """Returns a convolution and its ReLU."""
    return [nn.Conv2d(inputs, outputs, size, padding=padding), nn.ReLU()]


def dense(*units: int) -> list[nn.Module]:
    """Returns dense layers with their ReLUs."""
    return [layer for inputs, outputs in itertools.pairwise(units)
            for layer in (nn.Linear(inputs, outputs), nn.ReLU())]


def network(name: str) -> nn.Sequential:
    """Returns the network of an experiment, from [batch, 1, height, width] float32 to logits."""
    pool = nn.MaxPool2d(2)
    return nn.Sequential(*{
        "chinese_cnn": lambda: [
            *conv(1, 32, 3, 1), pool, *conv(32, 64, 3, 1), pool, *conv(64, 128, 3, 1), pool,
            nn.Flatten(), *dense(8192, 1024, 512, 256), nn.Linear(256, 15)],
        "mnist_cnn": lambda: [
            *conv(1, 32, 3), *conv(32, 64, 3), pool, nn.Dropout(0.25), *conv(64, 128, 2),
            *conv(128, 256, 2), pool, nn.Dropout(0.25), nn.Flatten(), *dense(6400, 128),
            nn.Dropout(0.5), nn.Linear(128, 10)],
        "mse_cnn": lambda: [
            *conv(1, 32, 4), pool, *conv(32, 32, 3), pool, nn.Dropout(0.3), nn.Flatten(),
            nn.Linear(800, 10)],
        "kaggle_cnn": lambda: [
            *conv(1, 32, 5, 2), *conv(32, 32, 5, 2), pool, nn.Dropout(0.5), *conv(32, 64, 3, 1),
            *conv(64, 64, 3, 1), pool, nn.Dropout(0.5), nn.Flatten(), *dense(3136, 8192),
            nn.Dropout(0.5), *dense(8192, 2048), nn.Dropout(0.5), nn.Linear(2048, 10)],
        "dense_cnn": lambda: [
            *conv(1, 32, 3, 1), pool, nn.Flatten(), *dense(6272, 256, 256), nn.Dropout(0.1),
            nn.Linear(256, 10)],
    }[name]())


def make_optimizer(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Returns the optimizer of an experiment with the same hyperparameters.

    On a GPU its step can be captured in a CUDA graph.
    """
    if name == "mse_cnn":
        return torch.optim.SGD(parameters, lr=0.01, fused=True)
    capturable = parameters[0].is_cuda
    if name == "mnist_cnn":
        return torch.optim.Adadelta(parameters, lr=1.0, rho=0.95, eps=1e-7, capturable=capturable)
    if name == "kaggle_cnn":
        return torch.optim.RMSprop(
            parameters, lr=1e-4, alpha=0.9, eps=1e-8, capturable=capturable)
    return torch.optim.Adam(
        parameters, lr=1e-3, eps=1e-7, fused=True, capturable=capturable)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the mean cross-entropy of a batch."""
    return nn.functional.cross_entropy(logits, labels)


def mse(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the mean squared error between the softmax and one-hot labels."""
    targets = nn.functional.one_hot(labels, logits.shape[1]).float()
    return nn.functional.mse_loss(logits.softmax(1), targets)


def set_precision(precision: str) -> None:
    """Allows or forbids TF32 on a GPU, where PyTorch's default allows it for convolutions only."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def trainer(
    name: str, batch_size: int, precision: str, layout: torch.memory_format, compilation: str,
    device: str, graph: bool = False,
) -> Callable[[int], float]:
    """Returns a function that trains for a number of steps and returns the milliseconds per step.

    Args:
      name: the name of the experiment.
      batch_size: the number of examples per step.
      precision: `fp32`, `tf32` or `bf16`.
      layout: the memory layout of images and kernels.
      compilation: the mode of `torch.compile`; empty for eager execution.
      device: `cpu` or `cuda`.
      graph: replay a CUDA graph of a whole step, the optimizer's included.
    """
    images, labels, _ = random_images(name, batch_size)
    images, labels = (array[:MAX_STEPS * batch_size] for array in (images, labels))
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    images, labels = images.to(device).float() / 255, torch.from_numpy(labels).long().to(device)
    model = network(name).to(device).to(memory_format=layout).train()
    optimizer = make_optimizer(name, list(model.parameters()))
    loss_of = mse if name == "mse_cnn" else cross_entropy
    total = torch.zeros((), device=device)

    def backward(batch: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Computes the gradients in place; returns the loss."""
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(model(batch), targets)
        loss.backward()
        return loss

    def train_step(chosen: torch.Tensor) -> None:
        total.add_(backward(images[chosen], labels[chosen]).detach())
        optimizer.step()

    if compilation:
        model.compile(mode=None if compilation == "default" else compilation)
    step = captured(train_step, batch_size) if graph else train_step

    def milliseconds(steps: int) -> float:
        start = time.perf_counter()
        total.zero_()
        if graph:  # a graph is of complete batches
            steps = min(steps, len(images) // batch_size)
        batches = torch.randperm(len(images), device=device).split(batch_size)[:steps]
        for chosen in batches:
            step(chosen)
        total.item()  # waits for the device
        return (time.perf_counter() - start) / len(batches) * 1000

    return milliseconds


def captured(
    train_step: Callable[[torch.Tensor], None], batch_size: int
) -> Callable[[torch.Tensor], None]:
    """Returns a function that replays a CUDA graph of a train step on a complete batch.

    Args:
      train_step: trains on the examples at the given indices, [batch] int64.
      batch_size: the number of examples of every batch.
    """
    chosen = torch.arange(batch_size, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, and creates the state of the optimizer
            train_step(chosen)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train_step(chosen)

    def replay(indices: torch.Tensor) -> None:
        chosen.copy_(indices)
        graph.replay()

    return replay


def main(name: str, batch_size: int, precision: str = "fp32") -> None:
    """Answers requests for timings of an experiment."""
    torch.set_num_threads(THREADS)
    set_precision(precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

    @functools.cache
    def variant(label: str) -> Callable[[int], float]:  # those that fail are skipped
        layout, *execution = label.split()
        return trainer(name, batch_size, precision, layouts[layout],
                       "default" if "compiled" in execution else "", device, "graph" in execution)

    def fastest_of(labels: Iterable[str]) -> str:
        return fastest({label: label for label in labels},
                       lambda label, steps: variant(label)(steps))

    if device == "cpu":
        chosen = fastest_of([*layouts, *(f"{layout} compiled" for layout in layouts)])
    else:  # only the faster layout is compiled, since it takes long
        chosen = fastest_of([*layouts, *(f"{layout} graph" for layout in layouts)])
        chosen = fastest_of([chosen, f"{chosen.split()[0]} compiled graph"])
    serve({"variant": chosen, "version": f"PyTorch {torch.__version__}"}, variant(chosen))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
