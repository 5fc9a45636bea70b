"""Splits a data set into training, validation and test examples.

Random splits use `permutation`, which sorts raw words of a Philox generator. NumPy guarantees that
the raw stream of a bit generator is the same in all versions and on all platforms. It does not
guarantee this for `Generator.permutation`, which is therefore not used.
"""

from collections.abc import Callable

import numpy as np

from flaxdigits.config import FOLDED, DataConfig
from flaxdigits.data.labeled_images import LabeledImages
from flaxdigits.datasets import find_dataset
from flaxdigits.errors import FlaxdigitsError

Split = dict[str, np.ndarray]


def split_indices(config: DataConfig, dataset: LabeledImages) -> Split:
    """Returns the indices of the examples in each part of the split that `config` names.

    Returns:
      int32 arrays under "train" and, if the split has them, "validation" and "test". Parts of a
      random split are in random order, so the first `config.limit` examples of "train" are a
      random sample. Parts of `official` are in the order of the data set, and those of `indices` in
      the order of the file.

    Raises:
      FlaxdigitsError: if the data set does not have this split or fold, or is too small for it.
    """
    _check(config, dataset)
    parts = _SPLITS[config.split](config, dataset)
    empty = [name for name, rows in parts.items() if not len(rows)]
    if empty:
        advice = ("change data.validation_fraction or data.test_fraction"
                  if config.split == "fractions" else "use another split or more data")
        raise FlaxdigitsError(
            f"data.split={config.split} has no examples for {empty[0]}: {dataset.name} has only "
            f"{len(dataset.labels)} examples; {advice}")
    parts["train"] = parts["train"][:config.limit]
    return {name: rows.astype(np.int32) for name, rows in parts.items()}


def splits_of(dataset: LabeledImages) -> tuple[str, ...]:
    """Returns the names of the split schemes that the data set has: the values of `data.split`."""
    has = {"official": dataset.official_train is not None, "writers": dataset.writers is not None,
           "indices": dataset.index_file is not None}
    return tuple(name for name in find_dataset(dataset.name).splits if has.get(name, True))


def permutation(count: int, seed: int) -> np.ndarray:
    """Returns a permutation of range(count), int64, the same in all NumPy versions and platforms.
    """
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")


def _check(config: DataConfig, dataset: LabeledImages) -> None:
    if config.split not in splits_of(dataset):
        raise FlaxdigitsError(
            f"data.split={config.split}: {dataset.name} has no such split; use one of "
            + ", ".join(splits_of(dataset)))
    if not 0 <= config.fold < config.folds:
        raise FlaxdigitsError(f"data.fold must be 0 to {config.folds - 1}, got {config.fold}")
    if config.fold and config.split not in FOLDED:
        raise FlaxdigitsError(
            f"data.fold={config.fold} needs data.split=writers or kfold, got {config.split}")


def _official(config: DataConfig, dataset: LabeledImages) -> Split:
    rows = np.arange(len(dataset.labels))
    assert dataset.official_train is not None  # else the data set does not have the split
    after_validation = max(dataset.official_train, dataset.validation.stop)
    return {"train": rows[:dataset.official_train], "test": rows[after_validation:]}


def _holdout(config: DataConfig, dataset: LabeledImages) -> Split:
    """Splits randomly in the proportions 55 : 5 : 10, but keeps official test and validation parts.
    """
    count = len(dataset.labels)
    given = np.arange(dataset.validation.start, dataset.validation.stop)
    train_count = dataset.validation.start if len(given) else dataset.official_train or count
    order = permutation(train_count, config.split_seed)
    if dataset.official_train is None:
        test, order = _cut(config, dataset, order, round(train_count / 7))
    else:
        test = np.arange(train_count + len(given), count)
    if len(given):
        return {"train": order, "validation": given, "test": test}
    validation, train = _cut(config, dataset, order, round(len(order) / 12))
    return {"train": train, "validation": validation, "test": test}


def _kaggle(config: DataConfig, dataset: LabeledImages) -> Split:
    """Splits all examples randomly into 54 %, 6 % and 40 %, as Kaggle's Digit Recognizer does."""
    count = len(dataset.labels)
    order = permutation(count, config.split_seed)
    train, order = _cut(config, dataset, order, round(0.54 * count))
    validation, test = _cut(config, dataset, order, round(0.6 * count) - len(train))
    return {"train": train, "validation": validation, "test": test}


def _random(config: DataConfig, dataset: LabeledImages) -> Split:
    """Splits all examples randomly into 80 % training and 20 % validation; there is no test part.

    If the data set has an official validation part, its training and validation parts are used.
    """
    if dataset.validation:
        return {"train": permutation(dataset.validation.start, config.split_seed),
                "validation": np.asarray(dataset.validation)}
    count = len(dataset.labels)
    order = permutation(count, config.split_seed)
    train, validation = _cut(config, dataset, order, round(0.8 * count))
    return {"train": train, "validation": validation}


def _fractions(config: DataConfig, dataset: LabeledImages) -> Split:
    """Splits all examples randomly by `validation_fraction` and `test_fraction`.

    A part whose fraction is 0 is missing.
    """
    count = len(dataset.labels)
    order = permutation(count, config.split_seed)
    validation, order = _cut(config, dataset, order, round(config.validation_fraction * count))
    test, train = _cut(config, dataset, order, round(config.test_fraction * count))
    parts = {"train": train}
    if config.validation_fraction:
        parts["validation"] = validation
    if config.test_fraction:
        parts["test"] = test
    return parts


def _kfold(config: DataConfig, dataset: LabeledImages) -> Split:
    """Splits all examples of all parts into folds with the same share of every class.

    Fold k is the test part, the next fold the validation part, and the other folds the training
    part. The sizes of the folds, and the counts of a class, differ by at most one.
    """
    count = len(dataset.labels)
    order = permutation(count, config.split_seed)
    fold = np.empty(count, np.int64)  # the fold of each index in `order`
    fold[np.argsort(dataset.labels[order], kind="stable")] = np.arange(count) % config.folds
    return _parts_of_fold(config, order, fold)


def _writers(config: DataConfig, dataset: LabeledImages) -> Split:
    """Splits the writers into folds, and the examples accordingly; the parts are as in `_kfold`."""
    assert dataset.writers is not None  # else the data set does not have the split
    writers = np.unique(dataset.writers)
    if len(writers) < config.folds:
        raise FlaxdigitsError(
            f"data.folds={config.folds}: {dataset.name} has only {len(writers)} writers; every "
            "fold needs at least one")
    folds = np.array_split(writers[permutation(len(writers), config.split_seed)], config.folds)
    order = permutation(len(dataset.labels), config.split_seed)
    fold_of = np.empty(len(writers), np.int64)
    for number, fold in enumerate(folds):
        fold_of[np.searchsorted(writers, fold)] = number
    return _parts_of_fold(config, order, fold_of[np.searchsorted(writers, dataset.writers[order])])


def _parts_of_fold(config: DataConfig, order: np.ndarray, fold: np.ndarray) -> Split:
    """Returns the parts of one fold.

    Args:
      config: the data config, with the number of the test fold and the number of folds.
      order: [examples] int, all indices in random order.
      fold: [examples] int, the fold of each index in `order`.
    """
    is_test, is_validation = fold == config.fold, fold == (config.fold + 1) % config.folds
    return {"train": order[~is_test & ~is_validation], "validation": order[is_validation],
            "test": order[is_test]}


def _indices(config: DataConfig, dataset: LabeledImages) -> Split:
    return dict(dataset.index_file.parts)


def _cut(
    config: DataConfig, dataset: LabeledImages, order: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides indices into `count` selected ones and the others, both in the given order.

    The selected indices are the first ones. With `config.stratify` they are evenly spaced among the
    indices sorted by class, so the share of each class is the same to within one example.
    """
    if not config.stratify:
        return order[:count], order[count:]
    is_chosen = np.zeros(len(order), bool)
    by_class = np.argsort(dataset.labels[order], kind="stable")
    is_chosen[by_class[(2 * np.arange(count) + 1) * len(order) // (2 * max(count, 1))]] = True
    return order[is_chosen], order[~is_chosen]


_SPLITS: dict[str, Callable[[DataConfig, LabeledImages], Split]] = {
    "official": _official,
    "holdout": _holdout,
    "kaggle": _kaggle,
    "random": _random,
    "fractions": _fractions,
    "kfold": _kfold,
    "writers": _writers,
    "indices": _indices,
}
