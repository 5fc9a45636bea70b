"""mnist_cnn: four unpadded convolutions on MNIST, claimed to reach 99.98 % on the test set."""

from flaxdigits.config import (
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> ExperimentConfig:
    """The original's recipe."""
    return ExperimentConfig(
        experiment="mnist_cnn",
        model=ModelConfig(
            "mnist_cnn", filters=(32, 64, 128, 256), dense=(128,), dropout=(0.25, 0.25, 0.5)),
        data=DataConfig(dataset="mnist", split="official", preprocessing="unit"),
        optimizer=OptimizerConfig(name="adadelta", learning_rate=1.0, rho=0.95, epsilon=1e-7),
        train=TrainConfig(batch_size=128, epochs=12, loss="cross_entropy"),
    )
