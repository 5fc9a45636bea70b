"""mse_cnn: why the squared error with SGD stops at 94.6 %: loss against optimizer.

    python launch.py --ablation=mse_cnn --seeds=0..2 --set train.epochs=3

24 runs on 55,000 images, validated on 5,000: `results/mse_cnn.md`. A run took 26 s on two cores.
Without flags they are 40, of the original's 20 epochs. In three epochs every other variant is
beyond what the base comes to in 20: the loss is slow to begin, not limited.
"""

from flaxdigits.studies.study import Study


def get_study() -> Study:
    """Each loss with each optimizer; the base is the squared error with SGD at 0.01."""
    return Study(
        experiment="mse_cnn", overrides=("data.split=holdout",),
        grid={
            "loss": {"MSE": (), "cross-entropy": ("train.loss=cross_entropy",)},
            "optimizer": {
                "SGD 0.01": ("optimizer.name=sgd",),
                "SGD 0.1": ("optimizer.learning_rate=0.1",),
                "SGD 0.01, momentum 0.9": ("optimizer.momentum=0.9",),
                "Adam 0.001": ("optimizer.name=adam", "optimizer.learning_rate=0.001"),
            }})
