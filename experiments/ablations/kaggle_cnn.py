"""kaggle_cnn: the original's unscaled validation input against scaled.

    python launch.py --ablation=kaggle_cnn

10 runs of 100 epochs on 37,800 images, validated on 4,200: use a GPU. The original scaled its
training images to 0..1 and gave the network validation and test images of 0..255.
"""

from flaxdigits.studies.study import Study


def get_study() -> Study:
    """The same weights, scored on images as they were trained on, and as the original did."""
    return Study(
        experiment="kaggle_cnn",
        variants={"scored on 0..255": ("evaluate.preprocessing=raw",)})
