r"""kaggle_cnn: the original's unscaled validation input vs. scaled input.

    python launch.py --ablation=kaggle_cnn --set model.filters=8,8,16,16 \
        --set model.dense=512,128 --set train.batch_size=32 --set train.epochs=1

10 runs of 49 s on two cores of an AMD EPYC: a quarter of the filters, a sixteenth of the units, and
one epoch of small batches instead of a hundred. `results/kaggle_cnn.md`: the accuracy does not
differ significantly, the loss is forty times as large. Without `--set` the runs are those of the
original, 100 epochs with 42.6 million parameters: use a GPU. The original scaled its training
images to [0, 1], but not its validation and test images, whose pixel values were in [0, 255].
"""

from flaxdigits.studies.study import Study


def get_study() -> Study:
    """Returns the study: the same weights, evaluated on scaled images and as in the original."""
    return Study(
        experiment="kaggle_cnn", extra_metrics=("validation_loss",),
        variants={"scored on 0..255": ("evaluate.preprocessing=raw",)})
