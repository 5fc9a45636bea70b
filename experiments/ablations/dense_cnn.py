"""dense_cnn: what its column normalisation is worth against division by 255.

    python launch.py --ablation=dense_cnn --set train.epochs=2

20 runs on 55,000 images, validated on 5,000: `results/dense_cnn.md`. A run took 34 s on two cores.
Without `--set` they have the original's 10 epochs.
"""

from flaxdigits.studies.study import Study


def get_study() -> Study:
    """The original's recipe with another preprocessing, and each without dropout."""
    return Study(
        experiment="dense_cnn", overrides=("data.split=holdout",),
        grid={
            "input": {"column norm": (), "x/255": ("data.preprocessing=unit",)},
            "dropout": {"dropout 0.1": (), "no dropout": ("model.dropout=",)},
        })
