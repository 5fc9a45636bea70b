"""chinese_cnn: width, depth, dropout, batch norm, augmentation, optimizer, and the split.

    python launch.py --ablation=chinese_cnn --seeds=0..2 --set train.epochs=1

39 runs of one epoch on 12,000 images: `results/chinese_cnn.md`, 35 minutes on two cores of an AMD
EPYC (under other load). Without flags there are 65 runs of 3 epochs, as in the original. All
variants but one are validated on 1,500 images of ten held-out writers; `random images` is the
split scheme of the original, in which the same writers are in the training and validation splits.
"""

from flaxdigits.studies.study import Study


def get_study() -> Study:
    """Returns the study: the original's recipe with held-out writers, one change per variant."""
    return Study(
        experiment="chinese_cnn", overrides=("data.split=writers",),
        variants={
            "half as wide": ("model.filters=16,32,64", "model.dense=512,256,128"),
            "twice as wide": ("model.filters=64,128,256", "model.dense=2048,1024,512"),
            "two convolutions": ("model.filters=32,64",),
            "four convolutions": ("model.filters=32,64,128,256",),
            "one dense layer": ("model.dense=1024",),
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
