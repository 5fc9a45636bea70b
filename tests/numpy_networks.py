"""The five networks, their losses, gradients and first steps in float64 NumPy."""

import itertools
from collections.abc import Callable

import numpy as np

# --- layers: each returns its output and a function of its gradient -----------------------------

Backward = Callable[[np.ndarray], tuple[np.ndarray, dict[str, np.ndarray]]]


def convolution(x, weights, padding) -> tuple[np.ndarray, Backward]:
    kernel, bias = weights["kernel"], weights["bias"]
    rows, columns = kernel.shape[:2]
    around = [(0, 0)] * 4
    if padding == "SAME":  # the odd one of an even kernel goes to the end
        around[1:3] = [((size - 1) // 2, size // 2) for size in (rows, columns)]
    padded = np.pad(x, around)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (rows, columns), axis=(1, 2))
    output = np.einsum("bhwcij,ijcf->bhwf", windows, kernel, optimize=True) + bias

    def backward(gradient):
        spread = np.zeros_like(padded)
        height, width = gradient.shape[1:3]
        for i in range(rows):
            for j in range(columns):
                spread[:, i:i + height, j:j + width] += gradient @ kernel[i, j].T
        (top, _), (left, _) = around[1:3]
        of_kernel = np.einsum("bhwcij,bhwf->ijcf", windows, gradient, optimize=True)
        return (spread[:, top:top + x.shape[1], left:left + x.shape[2]],
                {"kernel": of_kernel, "bias": gradient.sum((0, 1, 2))})

    return output, backward


def dense(x, weights) -> tuple[np.ndarray, Backward]:
    def backward(gradient):
        return (gradient @ weights["kernel"].T,
                {"kernel": x.T @ gradient, "bias": gradient.sum(0)})

    return x @ weights["kernel"] + weights["bias"], backward


def relu(x) -> tuple[np.ndarray, Backward]:
    return np.maximum(x, 0), lambda gradient: (gradient * (x > 0), {})


def pool(x) -> tuple[np.ndarray, Backward]:
    corners = [(i, j) for i in range(2) for j in range(2)]
    even = x[:, :x.shape[1] // 2 * 2, :x.shape[2] // 2 * 2]
    choices = np.stack([even[:, i::2, j::2] for i, j in corners])
    largest = choices.argmax(0)

    def backward(gradient):
        spread = np.zeros_like(x)
        inside = spread[:, :even.shape[1], :even.shape[2]]
        for number, (i, j) in enumerate(corners):
            inside[:, i::2, j::2] = np.where(largest == number, gradient, 0)
        return spread, {}

    return choices.max(0), backward


def flatten(x) -> tuple[np.ndarray, Backward]:
    return x.reshape(len(x), -1), lambda gradient: (gradient.reshape(x.shape), {})


# --- networks: the layers in the order of the documents -----------------------------------------

SAME, VALID = "SAME", "VALID"
NETWORKS = {
    "chinese_cnn": [SAME, relu, pool, SAME, relu, pool, SAME, relu, pool, flatten,
                    dense, relu, dense, relu, dense, relu, dense],
    "mnist_cnn": [VALID, relu, VALID, relu, pool, VALID, relu, VALID, relu, pool, flatten,
                  dense, relu, dense],
    "mse_cnn": [VALID, relu, pool, VALID, relu, pool, flatten, dense],
    "kaggle_cnn": [SAME, relu, SAME, relu, pool, SAME, relu, SAME, relu, pool, flatten,
                   dense, relu, dense, relu, dense],
    "dense_cnn": [SAME, relu, pool, flatten, dense, relu, dense, relu, dense],
}
# The kernels of the documents; where the real widths are slow in NumPy, narrow ones.
CONVOLUTIONS = {
    "chinese_cnn": [(3, 1, 5), (3, 5, 6), (3, 6, 7)],
    "mnist_cnn": [(3, 1, 5), (3, 5, 6), (2, 6, 7), (2, 7, 8)],
    "mse_cnn": [(4, 1, 32), (3, 32, 32)],
    "kaggle_cnn": [(5, 1, 4), (5, 4, 5), (3, 5, 6), (3, 6, 7)],
    "dense_cnn": [(3, 1, 32)],
}
DENSE = {
    "chinese_cnn": [8 * 8 * 7, 20, 16, 12, 15],
    "mnist_cnn": [5 * 5 * 8, 12, 10],
    "mse_cnn": [800, 10],
    "kaggle_cnn": [7 * 7 * 7, 24, 16, 10],
    "dense_cnn": [6272, 256, 256, 10],
}


def weights_of(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Fixed float32-exact weights, with biases, of a size that keeps activations near one."""
    rng = np.random.default_rng(7)

    def layer(*shape):
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        return {"kernel": rng.normal(0, scale, shape).astype(np.float32).astype(float),
                "bias": rng.normal(0, 0.1, shape[-1:]).astype(np.float32).astype(float)}

    named = {f"Conv_{number}": layer(size, size, before, features)
             for number, (size, before, features) in enumerate(CONVOLUTIONS[name])}
    widths = DENSE[name]
    return named | {f"Dense_{number}": layer(*pair)
                    for number, pair in enumerate(itertools.pairwise(widths))}


def forward(name: str, weights, x) -> tuple[np.ndarray, Callable]:
    """Logits, and a function from their gradient to the gradient of every weight."""
    convolutions = (key for key in weights if key.startswith("Conv"))
    denses = (key for key in weights if key.startswith("Dense"))
    tape = []
    for layer in NETWORKS[name]:
        key = None
        if layer in (SAME, VALID):
            key = next(convolutions)
            x, back = convolution(x, weights[key], layer)
        elif layer is dense:
            key = next(denses)
            x, back = dense(x, weights[key])
        else:
            x, back = layer(x)
        tape.append((key, back))

    def backward(gradient):
        found = {}
        for key, back in reversed(tape):
            gradient, of_weights = back(gradient)
            if key:
                found[key] = of_weights
        return found

    return x, backward


def numpy_loss(logits, labels, loss: str) -> tuple[float, np.ndarray]:
    """The mean loss over the examples and its gradient by the logits."""
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    p = exponential / exponential.sum(1, keepdims=True)
    target = np.eye(logits.shape[1])[labels]
    if loss == "mse":
        of_p = 2 * (p - target) / target.size
        return np.mean((p - target)**2), p * (of_p - (of_p * p).sum(1, keepdims=True))
    return -np.mean(np.log(p[target == 1])), (p - target) / len(labels)


def numpy_preprocess(images, name: str) -> np.ndarray:
    if name == "unit":
        return images / 255
    norms = np.sqrt((images.astype(float)**2).sum(1, keepdims=True))
    return images / np.where(norms == 0, 1, norms)


# Keras's first steps: the change of a parameter whose gradient is g and whose slots are empty.
# Adam's epsilon stands as in Kingma and Ba's algorithm 1, as the optimizer's docstring says.
STEPS = {
    "adam": lambda g: -1e-3 * g / (np.abs(g) + 1e-7),
    "adadelta": lambda g: -1.0 * g * np.sqrt(1e-7) / np.sqrt(0.05 * g**2 + 1e-7),
    "sgd": lambda g: -0.01 * g,
    "rmsprop": lambda g: -1e-4 / (1 + 1e-5 * 0) * g / (np.sqrt(0.1 * g**2) + 1e-8),
}
OPTIMIZERS = {"chinese_cnn": "adam", "mnist_cnn": "adadelta", "mse_cnn": "sgd",
              "kaggle_cnn": "rmsprop", "dense_cnn": "adam"}
