"""mse_cnn: two small convolutions on MNIST, trained with SGD on the squared error.

    python launch.py --experiment=mse_cnn

Training takes about 2 minutes on two cores of an AMD EPYC (3.7 ms per step).
Expected: 94.68 % ± 0.16 test accuracy (5 seeds; claimed 94.61 %).

The loss is the mean over the classes of the squared difference between softmax and one-hot labels.
Our choice: the division by 255. The original does not specify on which images its accuracy "out of
60,000" was evaluated.
"""

from flaxdigits.config import DataConfig, ExperimentConfig, TrainConfig
from flaxdigits.losses import MeanSquaredError
from flaxdigits.models import MseCnnConfig
from flaxdigits.optimizers import SGD
from flaxdigits.studies.replication import Claim, Replication


def get_config() -> ExperimentConfig:
    """Returns the recipe of the original."""
    return ExperimentConfig(
        experiment="mse_cnn",
        model=MseCnnConfig(filters=(32, 32), dropout=(0.3,)),
        data=DataConfig(dataset="mnist", split="official", preprocessing="unit"),
        optimizer=SGD(learning_rate=0.01),
        train=TrainConfig(batch_size=32, epochs=20, loss=MeanSquaredError()),
    )


def get_replication() -> Replication:
    """Returns the claim, from the original's page."""
    return Replication(
        original="MNIST Digit Recognition with CNN",
        claims=(Claim(
            "train_accuracy", 0.9461, extra_metrics=("train_accuracy_running",),
            about='"out of 60000 samples"',
            why="The original does not specify the images. We assume that the 60,000 are the "
                "training images, evaluated without dropout; the running training accuracy, with "
                "dropout, is lower."),))
