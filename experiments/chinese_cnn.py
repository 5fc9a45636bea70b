"""chinese_cnn: tf2-chinese-mnist, fifteen handwritten Chinese numerals."""

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
        experiment="chinese_cnn",
        model=ModelConfig("chinese_cnn", filters=(32, 64, 128), dense=(1024, 512, 256)),
        data=DataConfig(dataset="chinese_mnist", split="random", preprocessing="unit"),
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-3, epsilon=1e-7),
        train=TrainConfig(batch_size=32, epochs=3, loss="cross_entropy"),
    )
