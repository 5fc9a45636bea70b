r"""kaggle_cnn: the original's unscaled validation input against scaled.

    python launch.py --ablation=kaggle_cnn --set model.filters=8,8,16,16 \
        --set model.dense=512,128 --set train.batch_size=32 --set train.epochs=1

10 runs of 49 s on two cores: a quarter of the filters, a sixteenth of the units, one epoch of
small batches in place of a hundred. `results/kaggle_cnn.md`: the accuracy is the same but for
chance, the loss forty times as large. Without `--set` they are the original's, 100 epochs of 42.6
million parameters: use a GPU. The original scaled its training images to 0..1 and gave the network
validation and test images of 0..255.
"""

from flaxdigits.studies.study import Study


def get_study() -> Study:
    """The same weights, scored on images as they were trained on, and as the original did."""
    return Study(
        experiment="kaggle_cnn", extra_metrics=("validation_loss",),
        variants={"scored on 0..255": ("evaluate.preprocessing=raw",)})
