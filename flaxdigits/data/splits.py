"""Named splits: which examples of a data set train, validate and test.

Seeded splits follow `permutation`, which sorts raw words of a Philox generator. NumPy promises
that a bit generator's raw stream stays the same in all versions and on all platforms, but not that
`Generator.permutation` does, so the latter is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from flaxdigits.config import FOLDED, DataConfig
from flaxdigits.datasets import find_dataset
from flaxdigits.errors import FlaxdigitsError

if TYPE_CHECKING:
    from flaxdigits.data.dataset import Dataset  # which imports this module

Split = dict[str, np.ndarray]


def split_indices(config: DataConfig, dataset: Dataset) -> Split:
    """Returns the indices of each part of the split that `config` names.

    Returns:
      int32 arrays under "train" and, where the split has them, "validation" and "test". Parts of a
      seeded split are in a random order, so that the first `config.limit` of "train" are a fair
      sample; those of `official` are in the data set's order, those of `indices` in the file's.

    Raises:
      FlaxdigitsError: if the data set does not have that split or fold, or is too small for it.
    """
    _check(config, dataset)
    parts = _SPLITS[config.split](config, dataset)
    empty = [name for name, rows in parts.items() if not len(rows)]
    if empty:
        raise FlaxdigitsError(
            f"data.split={config.split} leaves nothing for {empty[0]}: {dataset.name} has only "
            f"{len(dataset.labels)} examples; use another split or more data")
    parts["train"] = parts["train"][:config.limit]
    return {name: rows.astype(np.int32) for name, rows in parts.items()}


def splits_of(dataset: Dataset) -> tuple[str, ...]:
    """Returns the names of the splits that the data set has."""
    has = {"official": dataset.official_train is not None, "writers": dataset.writers is not None,
           "indices": dataset.index_file is not None}
    return tuple(name for name in find_dataset(dataset.name).splits if has.get(name, True))


def permutation(count: int, seed: int) -> np.ndarray:
    """Returns a permutation of range(count), int64, the same everywhere and in every NumPy."""
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")


def _check(config: DataConfig, dataset: Dataset) -> None:
    if config.split not in splits_of(dataset):
        raise FlaxdigitsError(
            f"data.split={config.split}: {dataset.name} has no such split; use one of "
            + ", ".join(splits_of(dataset)))
    if not 0 <= config.fold < config.folds:
        raise FlaxdigitsError(f"data.fold must be 0 to {config.folds - 1}, got {config.fold}")
    if config.fold and config.split not in FOLDED:
        raise FlaxdigitsError(
            f"data.fold={config.fold} needs data.split=writers or kfold, got {config.split}")


def _official(config: DataConfig, dataset: Dataset) -> Split:
    rows = np.arange(len(dataset.labels))
    after_validation = max(dataset.official_train, dataset.validation.stop)
    return {"train": rows[:dataset.official_train], "test": rows[after_validation:]}


def _holdout(config: DataConfig, dataset: Dataset) -> Split:
    """MNIST's proportions, 55 : 5 : 10, except that the parts of the data set itself are kept."""
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


def _kaggle(config: DataConfig, dataset: Dataset) -> Split:
    """All 70,000 images in the proportions of Kaggle's Digit Recognizer: 54 %, 6 %, 40 %."""
    count = len(dataset.labels)
    order = permutation(count, config.split_seed)
    train, order = _cut(config, dataset, order, round(0.54 * count))
    validation, test = _cut(config, dataset, order, round(0.6 * count) - len(train))
    return {"train": train, "validation": validation, "test": test}


def _random(config: DataConfig, dataset: Dataset) -> Split:
    """Four fifths of all images train, one fifth validates, whoever wrote them; no test part.

    If the data set has a validation part, that part validates and only the training part trains.
    """
    if dataset.validation:
        return {"train": permutation(dataset.validation.start, config.split_seed),
                "validation": np.asarray(dataset.validation)}
    count = len(dataset.labels)
    order = permutation(count, config.split_seed)
    train, validation = _cut(config, dataset, order, round(0.8 * count))
    return {"train": train, "validation": validation}


def _kfold(config: DataConfig, dataset: Dataset) -> Split:
    """All examples in folds with the same share of every class, whatever part they belong to.

    Fold k tests, the next one validates, the others train. Sizes of folds, and counts of a class,
    differ by at most one between folds.
    """
    count = len(dataset.labels)
    order = permutation(count, config.split_seed)
    fold = np.empty(count, np.int64)  # of each place in the order
    fold[np.argsort(dataset.labels[order], kind="stable")] = np.arange(count) % config.folds
    return _folded(config, order, fold)


def _writers(config: DataConfig, dataset: Dataset) -> Split:
    """Writers in folds: fold k tests, the next one validates, the others train."""
    writers = np.unique(dataset.writers)
    if len(writers) < config.folds:
        raise FlaxdigitsError(
            f"data.folds={config.folds}: {dataset.name} has only {len(writers)} writers; every "
            "fold needs one")
    folds = np.array_split(writers[permutation(len(writers), config.split_seed)], config.folds)
    order = permutation(len(dataset.labels), config.split_seed)
    fold_of = np.empty(len(writers), np.int64)
    for number, fold in enumerate(folds):
        fold_of[np.searchsorted(writers, fold)] = number
    return _folded(config, order, fold_of[np.searchsorted(writers, dataset.writers[order])])


def _folded(config: DataConfig, order: np.ndarray, fold: np.ndarray) -> Split:
    """Returns the parts of one fold.

    Args:
      config: which fold, of how many.
      order: [examples] int, all indices in a random order.
      fold: [examples] int, the fold of each.
    """
    is_test, is_validation = fold == config.fold, fold == (config.fold + 1) % config.folds
    return {"train": order[~is_test & ~is_validation], "validation": order[is_validation],
            "test": order[is_test]}


def _indices(config: DataConfig, dataset: Dataset) -> Split:
    return dict(dataset.index_file.parts)


def _cut(
    config: DataConfig, dataset: Dataset, order: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `count` of the indices, and the rest, both in their order.

    They are the first ones; with `config.stratify`, instead evenly spaced ones of the indices
    sorted by class, so that each class has its share of both to within one example.
    """
    if not config.stratify:
        return order[:count], order[count:]
    is_chosen = np.zeros(len(order), bool)
    by_class = np.argsort(dataset.labels[order], kind="stable")
    is_chosen[by_class[(2 * np.arange(count) + 1) * len(order) // (2 * max(count, 1))]] = True
    return order[is_chosen], order[~is_chosen]


_SPLITS: dict[str, Callable[[DataConfig, Dataset], Split]] = {
    "official": _official,
    "holdout": _holdout,
    "kaggle": _kaggle,
    "random": _random,
    "kfold": _kfold,
    "writers": _writers,
    "indices": _indices,
}
