"""dense_cnn: one convolution and two dense layers on column-normalised MNIST."""

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
        experiment="dense_cnn",
        model=ModelConfig("dense_cnn", filters=(32,), dense=(256, 256), dropout=(0.1,)),
        data=DataConfig(dataset="mnist", split="official", preprocessing="column_norm"),
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-3, epsilon=1e-7),
        train=TrainConfig(batch_size=32, epochs=10, loss="cross_entropy"),
    )
