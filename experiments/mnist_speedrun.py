"""mnist_speedrun: 99 % of MNIST's test images in as little training as we can.

    python launch.py --experiment=mnist_speedrun

Expected: 99.26 % ± 0.06 of the test images (10 seeds, `--seeds=0..9`, the worst 99.17 %). Training
takes 62 s on two cores of a CPU, after 2.4 s of compiling.

Ours from end to end, chosen on the `holdout` split's validation images: a small network, Adam on
one OneCycle (Smith and Topin 2018), four epochs. On a GPU add `--set train.precision=bf16`; how
long it takes there has not been measured.
"""

from flaxdigits.config import DataConfig, ExperimentConfig, TrainConfig
from flaxdigits.models import ChineseCnnConfig
from flaxdigits.optimizers import Adam
from flaxdigits.schedules import OneCycle


def get_config() -> ExperimentConfig:
    """The recipe."""
    return ExperimentConfig(
        experiment="mnist_speedrun",
        model=ChineseCnnConfig(filters=(24, 48, 64), dense=(96,)),
        data=DataConfig(dataset="mnist", split="official", preprocessing="unit"),
        optimizer=Adam(learning_rate=0.004, schedule=OneCycle()),
        train=TrainConfig(batch_size=256, epochs=4, log_every=235),  # on a GPU an epoch a call
    )
