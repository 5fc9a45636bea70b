"""kaggle_cnn: 42.6 million parameters on MNIST in Kaggle's proportions, with augmentation.

    python launch.py --experiment=kaggle_cnn

The complete recipe has not been run yet: a step takes about 1.5 s on two cores of an AMD EPYC
(timed without augmentation), an epoch two minutes, and all epochs three and a half hours. Measured
after 10 epochs (`--set train.epochs=10`): 98.32 % test accuracy (1 seed; the original claims a
Kaggle score of 99.50 % after 100 epochs).

From the original: RMSprop with its constants (epsilon outside the root, learning rate
1e-4 / (1 + 1e-5 t)), dropout 0.5, batches of 512, 100 epochs. The original scaled only its training
images to [0, 1] and evaluated on pixel values in [0, 255]; this bug is not reproduced. Our choice:
the seed of the splits.
"""

from flaxdigits.augmentations import Affine
from flaxdigits.config import DataConfig, ExperimentConfig, TrainConfig
from flaxdigits.models import KaggleCnnConfig
from flaxdigits.optimizers import RMSprop
from flaxdigits.schedules import InverseTime
from flaxdigits.studies.replication import Claim, Replication


def get_config() -> ExperimentConfig:
    """Returns the recipe of the original."""
    return ExperimentConfig(
        experiment="kaggle_cnn",
        model=KaggleCnnConfig(
            filters=(32, 32, 64, 64), dense=(8192, 2048),
            dropout=(0.5, 0.5, 0.5, 0.5)),
        data=DataConfig(
            dataset="mnist", split="kaggle", preprocessing="unit",
            augmentation=(Affine(rotation=1, zoom=0.1, shift=0.05),)),
        optimizer=RMSprop(
            learning_rate=1e-4, rho=0.9, epsilon=1e-8, schedule=InverseTime(decay_rate=1e-5)),
        train=TrainConfig(batch_size=512, epochs=100),
    )


def get_replication() -> Replication:
    """Returns the claim, from the original's code."""
    return Replication(
        original="digit_recognizer",
        claims=(Claim(
            "test_accuracy", 0.995, about="Kaggle score",
            why="The original trained on pixel values in [0, 1] and evaluated on pixel values in "
                "[0, 255]; the replication uses [0, 1] for both. In the study kaggle_cnn, with a "
                "smaller network, evaluating on [0, 255] changes the accuracy by -0.32 points "
                "(95 % interval -1.27 to +0.63), and multiplies the loss by forty. It is unknown "
                "which of the 70,000 images are Kaggle's test images: the replication splits them "
                "with a seed."),))
