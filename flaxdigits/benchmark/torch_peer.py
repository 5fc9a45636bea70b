"""Times the networks of the experiments in PyTorch, with the batches and optimizers of flaxdigits.

    python -m flaxdigits.benchmark.torch_peer chinese_cnn 32

It times the fastest combination of memory layout and execution (eager or compiled). The protocol is
described in `flaxdigits.benchmark.peers`. The images are in memory as one tensor and are shuffled
for every timing.
"""

import itertools
import sys
import time
from collections.abc import Callable

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
    """Returns the optimizer of an experiment with the same hyperparameters."""
    if name == "mnist_cnn":
        return torch.optim.Adadelta(parameters, lr=1.0, rho=0.95, eps=1e-7)
    if name == "mse_cnn":
        return torch.optim.SGD(parameters, lr=0.01, fused=True)
    if name == "kaggle_cnn":
        return torch.optim.RMSprop(parameters, lr=1e-4, alpha=0.9, eps=1e-8)
    return torch.optim.Adam(parameters, lr=1e-3, eps=1e-7, fused=True)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the mean cross-entropy of a batch."""
    return nn.functional.cross_entropy(logits, labels)


def mse(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the mean squared error between the softmax and one-hot labels."""
    targets = nn.functional.one_hot(labels, logits.shape[1]).float()
    return nn.functional.mse_loss(logits.softmax(1), targets)


def trainer(
    name: str, batch_size: int, layout: torch.memory_format, compilation: str, device: str
) -> Callable[[int], float]:
    """Returns a function that trains for a number of steps and returns the milliseconds per step.

    Args:
      name: the name of the experiment.
      batch_size: the number of examples per step.
      layout: the memory layout of images and kernels.
      compilation: the mode of `torch.compile`; empty for eager execution.
      device: `cpu` or `cuda`.
    """
    images, labels, _ = random_images(name, batch_size)
    images, labels = (array[:MAX_STEPS * batch_size] for array in (images, labels))
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    images, labels = images.to(device).float() / 255, torch.from_numpy(labels).long().to(device)
    model = network(name).to(device).to(memory_format=layout).train()
    optimizer = make_optimizer(name, list(model.parameters()))
    loss_of = mse if name == "mse_cnn" else cross_entropy

    def backward(batch: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Computes the gradients in place; returns the loss."""
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(batch), targets)
        loss.backward()
        return loss

    if compilation:
        model.compile(mode=None if compilation == "default" else compilation)

    def milliseconds(steps: int) -> float:
        start = time.perf_counter()
        total = torch.zeros((), device=device)
        batches = torch.randperm(len(images), device=device).split(batch_size)[:steps]
        for chosen in batches:
            total += backward(images[chosen], labels[chosen]).detach()
            optimizer.step()
        total.item()  # waits for the device
        return (time.perf_counter() - start) / len(batches) * 1000

    return milliseconds


def main(name: str, batch_size: int) -> None:
    """Answers requests for timings of an experiment."""
    torch.set_num_threads(THREADS)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    compilations = ["", "default"] + (["reduce-overhead"] if device == "cuda" else [])
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    variants = {
        f"{layout} {compilation}".strip(): trainer(
            name, batch_size, layouts[layout], compilation, device)
        for layout in layouts for compilation in compilations}
    chosen = fastest(variants, lambda variant, steps: variant(steps))
    serve({"variant": chosen, "version": f"PyTorch {torch.__version__}"}, variants[chosen])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
