"""chinese_cnn a quarter as wide: width, depth, dropout, batch norm, augmentation, optimizer, split.

    python launch.py --ablation=chinese_cnn_narrow

The study `chinese_cnn` for machines that it is too much for. All but one hold writers out and are
validated on 1,500 images of ten of them; `random images` is the original's split, validated on
hands it knows.
"""

from flaxdigits.studies.study import Study


def get_study() -> Study:
    """The original's recipe on unseen hands, with one thing changed at a time."""
    return Study(
        experiment="chinese_cnn", overrides=(
            "data.split=writers", "model.filters=8,16,32", "model.dense=256,128,64"),
        variants={
            "half as wide": ("model.filters=4,8,16", "model.dense=128,64,32"),
            "twice as wide": ("model.filters=16,32,64", "model.dense=512,256,128"),
            "two convolutions": ("model.filters=8,16",),
            "four convolutions": ("model.filters=8,16,32,64",),
            "one dense layer": ("model.dense=256",),
            "dropout 0.3": ("model.dropout=0.3,0.3,0.3",),
            "batch norm": ("model.batch_norm=true",),
            "rotation 10, zoom 0.1, shift 0.05": (
                "data.augmentation.rotation=10", "data.augmentation.zoom=0.1",
                "data.augmentation.shift=0.05"),
            "RMSprop 0.001": ("optimizer.name=rmsprop",),
            "SGD 0.05, momentum 0.9": (
                "optimizer.name=sgd", "optimizer.learning_rate=0.05", "optimizer.momentum=0.9"),
            "Adam, cosine": ("optimizer.schedule=cosine",),
            "random images": ("data.split=random",),
        })
