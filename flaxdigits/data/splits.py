"""Named splits: which rows of the raw order train, validate and test.

Seeded splits follow `permutation`, which sorts raw words of a Philox generator. NumPy promises
that a bit generator's raw stream stays the same for good and everywhere; it does not promise that
of `Generator.permutation`, so that is not used.
"""

from collections.abc import Callable

import numpy as np

from flaxdigits.config import SPLITS, DataConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.errors import FlaxdigitsError

FOLDS = 10  # of the `writers` split

Split = dict[str, np.ndarray]


def split_indices(config: DataConfig, dataset: Dataset) -> Split:
    """The rows of each part of the split that `config` names.

    Returns: int32 arrays under "train" and, where the split has them, "validation" and "test".
      Seeded parts are in a random order, so that the first `config.limit` of "train" are a fair
      sample; "official" ones are in the raw order.
    Raises:
      FlaxdigitsError: the data set does not have that split or fold, or is too small for it.
    """
    _check(config, dataset)
    parts = _MAKERS[config.split](config, dataset)
    empty = [name for name, rows in parts.items() if not len(rows)]
    if empty:
        raise FlaxdigitsError(
            f"data.split={config.split} leaves nothing for {empty[0]}: {dataset.name} has only "
            f"{len(dataset.labels)} examples; use another split or more data")
    parts["train"] = parts["train"][:config.limit]
    return {name: rows.astype(np.int32) for name, rows in parts.items()}


def splits_of(dataset: Dataset) -> tuple[str, ...]:
    """The names of the splits which the data set has."""
    return tuple(name for name in SPLITS[dataset.name]
                 if name != "official" or dataset.official_train is not None)


def permutation(count: int, seed: int) -> np.ndarray:
    """A permutation of range(count), int64, the same on every platform and NumPy version."""
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")


def _check(config: DataConfig, dataset: Dataset) -> None:
    if config.split not in splits_of(dataset):
        raise FlaxdigitsError(
            f"data.split={config.split}: {dataset.name} has no such split; use one of "
            + ", ".join(splits_of(dataset)))
    if not 0 <= config.fold < FOLDS:
        raise FlaxdigitsError(f"data.fold must be 0 to {FOLDS - 1}, got {config.fold}")
    if config.fold and config.split != "writers":
        raise FlaxdigitsError(
            f"data.fold={config.fold} needs data.split=writers, got {config.split}")


def _official(config: DataConfig, dataset: Dataset) -> Split:
    rows = np.arange(len(dataset.labels))
    after_validation = max(dataset.official_train, dataset.validation.stop)
    return {"train": rows[:dataset.official_train], "test": rows[after_validation:]}


def _holdout(config: DataConfig, dataset: Dataset) -> Split:
    """MNIST's proportions, 55 : 5 : 10, except that the user's own parts stay as they are."""
    count = len(dataset.labels)
    own = np.arange(dataset.validation.start, dataset.validation.stop)
    train_count = dataset.validation.start if len(own) else dataset.official_train or count
    order = permutation(train_count, config.split_seed)
    if dataset.official_train is None:
        test, order = np.split(order, [round(train_count / 7)])
    else:
        test = np.arange(train_count + len(own), count)
    if len(own):
        return {"train": order, "validation": own, "test": test}
    validation, train = np.split(order, [round(len(order) / 12)])
    return {"train": train, "validation": validation, "test": test}


def _kaggle(config: DataConfig, dataset: Dataset) -> Split:
    """All 70,000 images in the proportions of Kaggle's Digit Recognizer: 54 %, 6 %, 40 %."""
    count = len(dataset.labels)
    order = permutation(count, config.split_seed)
    train, validation, test = np.split(order, [round(0.54 * count), round(0.6 * count)])
    return {"train": train, "validation": validation, "test": test}


def _random(config: DataConfig, dataset: Dataset) -> Split:
    """Four fifths of all images train, one fifth validates, whoever wrote them; no test part.

    The user's own validation part stays as it is, and then the training part alone is trained on.
    """
    if dataset.validation:
        return {"train": permutation(dataset.validation.start, config.split_seed),
                "validation": np.asarray(dataset.validation)}
    count = len(dataset.labels)
    order = permutation(count, config.split_seed)
    train, validation = np.split(order, [round(0.8 * count)])
    return {"train": train, "validation": validation}


def _writers(config: DataConfig, dataset: Dataset) -> Split:
    """Writers in ten folds: fold k tests, the next one validates, the other eight train."""
    writers = np.unique(dataset.writers)
    folds = np.array_split(writers[permutation(len(writers), config.split_seed)], FOLDS)
    test, validation = folds[config.fold], folds[(config.fold + 1) % FOLDS]
    held_out = np.concatenate([test, validation])
    order = permutation(len(dataset.labels), config.split_seed)
    by = dataset.writers[order]
    return {
        "train": order[~np.isin(by, held_out)],
        "validation": order[np.isin(by, validation)],
        "test": order[np.isin(by, test)],
    }


_MAKERS: dict[str, Callable[[DataConfig, Dataset], Split]] = {
    "official": _official,
    "holdout": _holdout,
    "kaggle": _kaggle,
    "random": _random,
    "writers": _writers,
}
