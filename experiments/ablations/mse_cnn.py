"""mse_cnn: why the squared error with SGD stops at 94.6 %: loss vs. optimizer.

    python launch.py --ablation=mse_cnn --seeds=0..2

24 runs of 20 epochs, as in the original, on 55,000 images, validated on 5,000:
`results/mse_cnn.md`. They took 59 minutes on two cores of an AMD EPYC (under other load); without
`--seeds` there are 40 runs. With this loss the network learns slowly at first, but its capacity is
not the limit: with Adam it reaches 99.20 % validation accuracy, like cross-entropy.
"""

from flaxdigits.studies.study import Study


def get_study() -> Study:
    """Returns the study: each loss with each optimizer; the base is MSE with SGD at 0.01."""
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
