"""Splits: sizes, disjointness, writers, and digests that must never change."""

import hashlib

import numpy as np
import pytest

from flaxdigits.config import DataConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.raw_chinese_mnist import raw_order
from flaxdigits.data.splits import permutation, split_indices
from flaxdigits.errors import FlaxdigitsError


def dataset(name: str, count: int, official_train: int | None = None, writers=None) -> Dataset:
    return Dataset(
        name=name, source="real", class_names=("a", "b"),
        images=np.zeros((count, 1, 1, 1), np.uint8), labels=np.zeros(count, np.int32),
        writers=writers, samples=writers, official_train=official_train, fingerprint="")


MNIST = dataset("mnist", 70_000, 60_000)
CHINESE_MNIST = dataset(
    "chinese_mnist", 15_000, writers=np.array([key[0] for key in raw_order()], np.int32))


def sizes(parts: dict[str, np.ndarray]) -> dict[str, int]:
    return {name: len(rows) for name, rows in parts.items()}


def digest(parts: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(parts[name].astype("<i4").tobytes())
    return digest.hexdigest()[:16]


# A digest that changes here is a split that changes under everyone's published results.
@pytest.mark.parametrize("data, split, fold, expected, golden", [
    (MNIST, "official", 0, (60_000, None, 10_000), "ba529acda3a2638f"),
    (MNIST, "holdout", 0, (55_000, 5_000, 10_000), "e93e5ff5c76a4cb3"),
    (MNIST, "kaggle", 0, (37_800, 4_200, 28_000), "8bd18b966b9436e0"),
    (CHINESE_MNIST, "random", 0, (12_000, 3_000, None), "bd4d637cb4270d67"),
    (CHINESE_MNIST, "writers", 0, (12_000, 1_500, 1_500), "354fbce002715d28"),
    (CHINESE_MNIST, "writers", 9, (12_000, 1_500, 1_500), "4f40b055813913df"),
])
def test_named_split(data, split, fold, expected, golden):
    parts = split_indices(DataConfig(dataset=data.name, split=split, fold=fold), data)
    names = ("train", "validation", "test")
    assert sizes(parts) == {n: size for n, size in zip(names, expected, strict=True) if size}
    assert all(rows.dtype == np.int32 for rows in parts.values())
    rows = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(data.labels)))
    assert digest(parts) == golden


def test_permutation_is_that_of_philoxs_raw_words():
    np.testing.assert_array_equal(permutation(10, seed=0), [0, 2, 9, 1, 8, 5, 4, 3, 6, 7])
    np.testing.assert_array_equal(permutation(10, seed=1), [3, 5, 2, 9, 7, 0, 8, 6, 1, 4])


def test_official_test_images_never_train_or_choose():
    parts = split_indices(DataConfig(split="holdout", split_seed=3), MNIST)
    assert max(parts["train"].max(), parts["validation"].max()) < 60_000
    np.testing.assert_array_equal(parts["test"], np.arange(60_000, 70_000))


def test_no_writer_is_in_two_parts_and_each_tests_once():
    tested = []
    for fold in range(10):
        parts = split_indices(
            DataConfig(dataset="chinese_mnist", split="writers", fold=fold), CHINESE_MNIST)
        train, validation, test = (
            set(CHINESE_MNIST.writers[parts[name]]) for name in ("train", "validation", "test"))
        assert (len(train), len(validation), len(test)) == (80, 10, 10)
        assert not (train & validation or train & test or validation & test)
        tested.append((test, validation))
    assert set.union(*(test for test, _ in tested)) == set(range(1, 101))
    for fold in range(10):  # the fold after validates
        assert tested[fold][1] == tested[(fold + 1) % 10][0]


def test_seed_changes_seeded_splits():
    first, second = (split_indices(DataConfig(split="holdout", split_seed=seed), MNIST)
                     for seed in (0, 1))
    assert not np.array_equal(first["validation"], second["validation"])


def test_limit_is_of_the_training_part_alone():
    whole = split_indices(DataConfig(dataset="chinese_mnist", split="random"), CHINESE_MNIST)
    parts = split_indices(
        DataConfig(dataset="chinese_mnist", split="random", limit=100), CHINESE_MNIST)
    np.testing.assert_array_equal(parts["train"], whole["train"][:100])
    np.testing.assert_array_equal(parts["validation"], whole["validation"])
    codes = {raw_order()[row][2] for row in parts["train"]}
    assert len(codes) == 15  # though the raw order goes character by character


@pytest.mark.parametrize("official_train, split, expected", [
    (600, "official", {"train": 600, "test": 100}),
    (600, "holdout", {"train": 550, "validation": 50, "test": 100}),
    (600, "random", {"train": 560, "validation": 140}),
    (None, "holdout", {"train": 550, "validation": 50, "test": 100}),
    (None, "random", {"train": 560, "validation": 140}),
])
def test_own_data_of_any_size(official_train, split, expected):
    own = dataset("image_folder", 700, official_train)
    parts = split_indices(DataConfig(dataset="image_folder", split=split), own)
    assert sizes(parts) == expected
    assert len(np.unique(np.concatenate(list(parts.values())))) == 700


@pytest.mark.parametrize("data, config, told", [
    (MNIST, DataConfig(split="writers"), "mnist has no such split; use one of official, holdout"),
    (CHINESE_MNIST, DataConfig(split="official"), "use one of random, writers"),
    (dataset("idx_files", 9), DataConfig(split="official"), "use one of holdout, random"),
    (CHINESE_MNIST, DataConfig(split="writers", fold=10), "data.fold must be 0 to 9, got 10"),
    (CHINESE_MNIST, DataConfig(split="writers", fold=-1), "data.fold must be 0 to 9, got -1"),
    (MNIST, DataConfig(split="holdout", fold=3), "data.fold=3 needs data.split=writers"),
    (dataset("idx_files", 3), DataConfig(split="holdout"), "leaves nothing for"),
])
def test_bad_requests_are_told_in_a_line(data, config, told):
    with pytest.raises(FlaxdigitsError, match=told) as error:
        split_indices(config, data)
    assert "\n" not in str(error.value)
