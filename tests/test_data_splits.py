"""Splits: sizes, disjointness, writers, and digests that must never change."""

import dataclasses
import hashlib

import numpy as np
import pytest

from flaxdigits.config import DataConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.raw_chinese_mnist import raw_order
from flaxdigits.data.splits import permutation, split_indices
from flaxdigits.datasets import DATASETS
from flaxdigits.errors import FlaxdigitsError

pytestmark = pytest.mark.quick


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


@pytest.mark.parametrize(("split", "parts"), [
    ("holdout", {"train": 550, "validation": 50, "test": 100}),
    ("random", {"train": 560, "validation": 140}),
    ("fractions", {"train": 560, "validation": 70, "test": 70}),
])
def test_stratified_parts_have_every_class_in_its_share(split, parts):
    labels = np.repeat(np.arange(10, dtype=np.int32), [70] * 10)
    balanced = dataclasses.replace(dataset("idx_files", 700), labels=labels)
    config = DataConfig("idx_files", split, stratify=True)
    found = split_indices(config, balanced)
    assert sizes(found) == parts
    for name, size in parts.items():
        assert np.bincount(labels[found[name]]).tolist() == [size // 10] * 10
    plain = split_indices(dataclasses.replace(config, stratify=False), balanced)
    assert len(set(np.bincount(labels[plain["validation"]]))) > 1
    assert len(np.unique(np.concatenate(list(found.values())))) == 700
    assert sorted(found["train"]) != list(found["train"])  # a limit takes a fair sample
    other = split_indices(dataclasses.replace(config, split_seed=1), balanced)
    assert not np.array_equal(found["validation"], other["validation"])


@pytest.mark.parametrize(("name", "validation", "test", "expected"), [
    ("mnist", 0.15, 0.25, {"train": 420, "validation": 105, "test": 175}),
    ("chinese_mnist", 0, 0.2, {"train": 560, "test": 140}),
    ("idx_files", 0.5, 0, {"train": 350, "validation": 350}),
])
def test_fractions_are_shares_of_all_examples(name, validation, test, expected):
    data = dataset(name, 700, 600 if name == "mnist" else None)
    config = DataConfig(
        name, "fractions", validation_fraction=validation, test_fraction=test)
    parts = split_indices(config, data)
    assert sizes(parts) == expected
    rows = np.concatenate(list(parts.values()))
    assert sorted(rows) == list(range(700)) and list(rows) != list(range(700))
    other = split_indices(dataclasses.replace(config, split_seed=1), data)
    assert not np.array_equal(parts["train"], other["train"])


def test_stratified_counts_are_within_one_of_any_share():
    counts = [3, 500, 1, 96, 41, 12]
    labels = np.repeat(np.arange(6, dtype=np.int32), counts)[permutation(653, 9)]
    data = dataclasses.replace(dataset("mnist", 653, 600), labels=labels)
    for split in ("holdout", "kaggle"):
        parts = split_indices(DataConfig(split=split, stratify=True), data)
        whole = labels[:600] if split == "holdout" else labels
        for name in ("train", "validation"):
            share = len(parts[name]) / len(whole)
            expected = share * np.bincount(whole, minlength=6)
            assert np.abs(np.bincount(labels[parts[name]], minlength=6) - expected).max() < 2


@pytest.mark.parametrize("folds", [3, 7, 10])
def test_kfold_tests_every_example_once_with_every_class_in_its_share(folds):
    counts = [3, 200, 1, 96]
    labels = np.repeat(np.arange(4, dtype=np.int32), counts)
    data = dataclasses.replace(dataset("idx_files", 300, 200), labels=labels)
    parts = [split_indices(DataConfig("idx_files", "kfold", fold, folds), data)
             for fold in range(folds)]
    np.testing.assert_array_equal(
        np.sort(np.concatenate([one["test"] for one in parts])), np.arange(300))
    for fold, one in enumerate(parts):
        np.testing.assert_array_equal(one["validation"], parts[(fold + 1) % folds]["test"])
        np.testing.assert_array_equal(np.sort(np.concatenate(list(one.values()))), np.arange(300))
        share = np.bincount(labels[one["test"]], minlength=4) - np.array(counts) / folds
        assert np.abs(share).max() < 1 and abs(len(one["test"]) - 300 / folds) < 1
        assert sorted(one["train"]) != list(one["train"])


def test_every_data_set_has_kfold():
    for name in DATASETS:
        writers = CHINESE_MNIST.writers if name == "chinese_mnist" else None
        data = dataclasses.replace(
            dataset(name, 15_000, writers=writers), labels=np.arange(15_000, dtype=np.int32) % 10)
        parts = split_indices(DataConfig(name, "kfold", fold=3), data)
        assert sizes(parts) == {"train": 12_000, "validation": 1_500, "test": 1_500}


def test_writers_of_any_data_in_any_number_of_folds():
    writers = np.array([7, 7, 3, 5, 5, 5, 9, 3, 11, 7], np.int32)
    data = dataset("npz", 10, writers=writers)
    parts = [split_indices(DataConfig("npz", "writers", fold, 3), data) for fold in range(3)]
    assert sorted(np.concatenate([one["test"] for one in parts])) == list(range(10))
    for one in parts:
        writer_sets = [set(writers[rows]) for rows in one.values()]
        assert set.union(*writer_sets) == set(writers) and sum(map(len, writer_sets)) == 5


def test_permutation_is_computed_from_the_raw_words_of_philox():
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
def test_custom_data_of_any_size_are_split(official_train, split, expected):
    own = dataset("image_folder", 700, official_train)
    parts = split_indices(DataConfig(dataset="image_folder", split=split), own)
    assert sizes(parts) == expected
    assert len(np.unique(np.concatenate(list(parts.values())))) == 700


@pytest.mark.parametrize("data, config, message", [
    (MNIST, DataConfig(split="writers"), "mnist has no such split; use one of official, holdout"),
    (CHINESE_MNIST, DataConfig(split="official"), "use one of random, fractions, writers"),
    (MNIST, DataConfig(split="fractions", validation_fraction=1e-9),
     "no examples for validation: mnist has only 70000 examples; change data.validation_fraction"),
    (dataset("idx_files", 9), DataConfig(split="official"), "use one of holdout, random"),
    (CHINESE_MNIST, DataConfig(split="writers", fold=10), "data.fold must be 0 to 9, got 10"),
    (CHINESE_MNIST, DataConfig(split="writers", fold=-1), "data.fold must be 0 to 9, got -1"),
    (MNIST, DataConfig(split="holdout", fold=3), "data.fold=3 needs data.split=writers"),
    (dataset("idx_files", 3), DataConfig(split="holdout"), "has no examples for"),
    (dataset("npz", 9), DataConfig(split="writers"), "npz has no such split; use one of holdout"),
    (dataset("npz", 9, writers=np.arange(9) % 4), DataConfig(split="writers"),
     "data.folds=10: npz has only 4 writers"),
    (dataset("npz", 9), DataConfig(split="kfold", fold=3, folds=3), "data.fold must be 0 to 2"),
    (dataset("npz", 9), DataConfig(split="indices"), "npz has no such split"),
])
def test_bad_requests_are_errors_of_one_line(data, config, message):
    with pytest.raises(FlaxdigitsError, match=message) as error:
        split_indices(config, data)
    assert "\n" not in str(error.value)
