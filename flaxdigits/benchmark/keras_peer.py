"""Times the networks of the experiments in Keras, with the batches and optimizers of flaxdigits.

    python -m flaxdigits.benchmark.keras_peer chinese_cnn 32

It times `Model.fit` on TensorFlow, with TensorFlow's kernels or compiled by XLA, whichever is
faster. The protocol is described in `flaxdigits.benchmark.peers`. The module needs the extra
`bench`, and does not import JAX.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from flaxdigits.benchmark.peers import MAX_STEPS, THREADS, fastest, random_images, serve

RELU = {"activation": "relu"}


def network(name: str) -> list[layers.Layer]:
    """Returns the layers of the network of an experiment; the loss applies the softmax."""
    if name == "chinese_cnn":
        convolutions = [
            layer for filters in (32, 64, 128)
            for layer in (layers.Conv2D(filters, 3, padding="same", **RELU), layers.MaxPool2D())]
        dense = [layers.Dense(units, **RELU) for units in (1024, 512, 256)]
        return [*convolutions, layers.Flatten(), *dense, layers.Dense(15)]
    if name == "mnist_cnn":
        return [
            layers.Conv2D(32, 3, **RELU), layers.Conv2D(64, 3, **RELU), layers.MaxPool2D(),
            layers.Dropout(0.25), layers.Conv2D(128, 2, **RELU), layers.Conv2D(256, 2, **RELU),
            layers.MaxPool2D(), layers.Dropout(0.25), layers.Flatten(), layers.Dense(128, **RELU),
            layers.Dropout(0.5), layers.Dense(10)]
    if name == "mse_cnn":
        return [
            layers.Conv2D(32, 4, **RELU), layers.MaxPool2D(), layers.Conv2D(32, 3, **RELU),
            layers.MaxPool2D(), layers.Dropout(0.3), layers.Flatten(),
            layers.Dense(10, activation="softmax")]
    if name == "kaggle_cnn":
        blocks = [
            layer for filters, size in ((32, 5), (64, 3))
            for layer in (layers.Conv2D(filters, size, padding="same", **RELU),
                          layers.Conv2D(filters, size, padding="same", **RELU),
                          layers.MaxPool2D(), layers.Dropout(0.5))]
        dense = [layer for units in (8192, 2048)
                 for layer in (layers.Dense(units, **RELU), layers.Dropout(0.5))]
        return [*blocks, layers.Flatten(), *dense, layers.Dense(10)]
    return [
        layers.Conv2D(32, 3, padding="same", **RELU), layers.MaxPool2D(), layers.Flatten(),
        layers.Dense(256, **RELU), layers.Dense(256, **RELU), layers.Dropout(0.1), layers.Dense(10)]


def optimizer(name: str) -> keras.optimizers.Optimizer:
    """Returns the optimizer of an experiment with the same hyperparameters."""
    return {
        "chinese_cnn": lambda: keras.optimizers.Adam(1e-3, epsilon=1e-7),
        "dense_cnn": lambda: keras.optimizers.Adam(1e-3, epsilon=1e-7),
        "mnist_cnn": lambda: keras.optimizers.Adadelta(1.0, rho=0.95, epsilon=1e-7),
        "mse_cnn": lambda: keras.optimizers.SGD(0.01),
        "kaggle_cnn": lambda: keras.optimizers.RMSprop(
            keras.optimizers.schedules.InverseTimeDecay(1e-4, 1, 1e-5), rho=0.9, epsilon=1e-8),
    }[name]()


def main(name: str, batch_size: int) -> None:
    """Answers requests for timings of an experiment."""
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    images, labels, classes = random_images(name, batch_size)
    images = images[:MAX_STEPS * batch_size].astype(np.float32) / 255
    labels = labels[:len(images)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if name == "mse_cnn":
        loss, labels = keras.losses.MeanSquaredError(), np.eye(classes, dtype=np.float32)[labels]

    def compiled(jit_compile: bool) -> keras.Model:
        model = keras.Sequential([keras.Input(images.shape[1:]), *network(name)])
        model.compile(optimizer(name), loss, metrics=["accuracy"], jit_compile=jit_compile)
        return model

    def milliseconds(model: keras.Model, steps: int) -> float:
        count = min(steps * batch_size, len(images))
        start = time.perf_counter()
        model.fit(images[:count], labels[:count], batch_size=batch_size, verbose=0)
        return (time.perf_counter() - start) / -(-count // batch_size) * 1000

    variants = {"plain": compiled(False), "XLA": compiled(True)}
    chosen = fastest(variants, milliseconds)
    serve({"variant": chosen, "version": f"Keras {keras.__version__}, TensorFlow {tf.__version__}"},
          lambda steps: milliseconds(variants[chosen], steps))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
