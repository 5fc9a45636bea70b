"""Trains the recipe of dense_cnn in Keras on TensorFlow, to compare the result with its claim.

    python experiments/originals/dense_cnn.py /path/to/raw/data 0 1 2

Trains the given seeds on real MNIST (the folder contains `mnist/*.gz`) and writes the accuracies of
every epoch to `dense_cnn.json` next to this file. Needs the extra [bench]. Takes five minutes per
seed on two cores of an AMD EPYC (under other load).
"""

import json
import sys
from pathlib import Path

from flaxdigits.benchmark import keras_peer  # first, as it sets the Keras backend

import keras  # isort: skip
import numpy as np
import tensorflow as tf

from flaxdigits.data.raw_mnist import OFFICIAL_TRAIN, read_mnist


def main(raw_data_dir: Path, seeds: list[int]) -> None:
    """Trains the seeds and writes their accuracies."""
    examples = read_mnist(raw_data_dir)
    images = keras.utils.normalize(examples.images.astype(np.float32), axis=1)[..., None]
    train, test = ((images[part], examples.labels[part])
                   for part in (slice(OFFICIAL_TRAIN), slice(OFFICIAL_TRAIN, None)))
    histories = {}
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((28, 28, 1)), *keras_peer.network("dense_cnn")])
        model.compile(keras_peer.optimizer("dense_cnn"),
                      keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                      metrics=["accuracy"])
        history = model.fit(*train, batch_size=32, epochs=10, validation_data=test, verbose=2)
        histories[seed] = {
            name: [round(value, 6) for value in history.history[column]]
            for name, column in (("test_accuracy", "val_accuracy"),
                                 ("train_accuracy_running", "accuracy"))}
    Path(__file__).with_suffix(".json").write_text(json.dumps(
        {"versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
         "seeds": histories}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
