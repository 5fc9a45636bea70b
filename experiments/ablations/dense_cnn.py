"""dense_cnn: its column normalization compared with division by 255.

    python launch.py --ablation=dense_cnn --set train.epochs=2

20 runs on 55,000 images, validated on 5,000: `results/dense_cnn.md`. A run took 34 s on two
cores of an AMD EPYC. Without `--set` the runs have 10 epochs, as in the original.
"""

from flaxdigits.studies.study import Study


def get_study() -> Study:
    """Returns the study: two ways of preprocessing, each with and without dropout."""
    return Study(
        experiment="dense_cnn", overrides=("data.split=holdout",),
        grid={
            "input": {"column norm": (), "x/255": ("data.preprocessing=unit",)},
            "dropout": {"dropout 0.1": (), "no dropout": ("model.dropout=",)},
        })
