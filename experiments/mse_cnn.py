"""mse_cnn: two small convolutions on MNIST, trained with SGD on the squared error."""

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
        experiment="mse_cnn",
        model=ModelConfig("mse_cnn", filters=(32, 32), dropout=(0.3,)),
        data=DataConfig(dataset="mnist", split="official", preprocessing="unit"),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.01),
        train=TrainConfig(batch_size=32, epochs=20, loss="mse"),
    )
