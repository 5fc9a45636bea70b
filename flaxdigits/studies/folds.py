"""All folds of the `writers` or the `kfold` split: every example is tested once, by a network that
never saw it, nor any other of its writer; and which writers (or folds) and classes it fails."""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from flaxdigits.config import FOLDED, ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import split_indices
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.json_files import read_bytes
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.loop import Outcome, train_many
from flaxdigits.training.trackers import Tracker

PREDICTED = ("index", "labels", "logits")


@dataclasses.dataclass(frozen=True)
class FoldRun:
    """One of the runs."""

    fold: int
    seed: int


@dataclasses.dataclass(frozen=True)
class FoldPredictions:
    """The test predictions of all folds, one after another; every example is there once a seed.

    Attributes:
      class_names: in the order of the labels.
      index: [predictions] int, of the example in the data set.
      labels: [predictions] int.
      logits: [predictions, classes] float32.
      groups: [predictions] int, the writer, or of the `kfold` split the fold.
      group_name: "writer" or "fold".
      seeds: how many networks tested each example.
    """

    class_names: tuple[str, ...]
    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    groups: np.ndarray
    group_name: str
    seeds: int

    @property
    def predicted(self) -> np.ndarray:
        """[predictions] int."""
        return self.logits.argmax(-1)

    def errors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the groups, and their errors and examples by class.

        Returns:
          [groups] int, the group with the highest error rate first, and twice [groups, classes].
        """
        names, rows = np.unique(self.groups, return_inverse=True)
        shape = len(names), len(self.class_names)
        errors, examples = np.zeros(shape, int), np.zeros(shape, int)
        np.add.at(examples, (rows, self.labels), 1)
        np.add.at(errors, (rows, self.labels), self.predicted != self.labels)
        order = np.argsort(-errors.sum(1) / examples.sum(1), kind="stable")
        return names[order], errors[order], examples[order]

    def confusions(self, group: int | None = None) -> list[tuple[int, int, int]]:
        """Returns (true, predicted, count) of every confusion, the most frequent first.

        Args:
          group: only of this one; None: of all.
        """
        wrong = self.predicted != self.labels
        if group is not None:
            wrong &= self.groups == group
        pairs, counts = np.unique(
            np.stack([self.labels[wrong], self.predicted[wrong]], axis=1), axis=0,
            return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(pairs[place][0]), int(pairs[place][1]), int(counts[place]))
                for place in order]


def fold_configs(
    config: ExperimentConfig, seeds: Sequence[int], workdir: Path
) -> dict[Path, ExperimentConfig]:
    """Returns the run of each fold and seed by its folder `folds/<fold>/seeds/<seed>`.

    The folds are of examples where the config has `data.split=kfold`, and else of writers.
    """
    split = config.data.split if config.data.split in FOLDED else "writers"
    return {
        workdir / "folds" / str(fold) / "seeds" / str(seed): dataclasses.replace(
            apply_overrides(config, [f"data.split={split}", f"data.fold={fold}"]), seed=seed)
        for seed in seeds for fold in range(config.data.folds)}


def train_folds(
    configs: Mapping[Path, ExperimentConfig], dataset: Dataset,
    trackers: Callable[[Path], Sequence[Tracker]] = lambda workdir: (),
    on_end: Callable[[FoldRun, Outcome], None] = lambda run, outcome: None,
) -> bool:
    """Trains the folds that are not finished yet, and returns whether all are.

    Args:
      configs: of `fold_configs`.
      dataset: of all of them; it must know its writers for the `writers` split.
      trackers: see `flaxdigits.training.loop.train_many`.
      on_end: called with each run that has ended, diverged or was paused.

    Raises:
      FlaxdigitsError: as `flaxdigits.training.loop.train` does, also if a fold diverges, since
        its writers could not be tested.
    """
    def report(path: Path, outcome: Outcome) -> None:
        on_end(FoldRun(configs[path].data.fold, configs[path].seed), outcome)

    outcomes: dict[Path, Outcome] = {}
    for group in _same_size(configs, dataset):
        done = train_many(group, dataset, trackers, report)
        outcomes |= done
        if len(done) < len(group) or any(outcome.signal for outcome in done.values()):
            break
    for path, outcome in outcomes.items():
        if outcome.diverged is not None:
            raise FlaxdigitsError(f"{path}: {outcome.diverged}")
    return len(outcomes) == len(configs) and all(
        outcome.result is not None for outcome in outcomes.values())


def _same_size(
    configs: Mapping[Path, ExperimentConfig], dataset: Dataset
) -> list[dict[Path, ExperimentConfig]]:
    """Returns the runs in groups that train on as many examples, and so share a program."""
    sizes: dict[int, int] = {}  # of the training part, by fold
    groups: dict[int, dict[Path, ExperimentConfig]] = {}
    for path, config in configs.items():
        if config.data.fold not in sizes:
            sizes[config.data.fold] = len(split_indices(config.data, dataset)["train"])
        groups.setdefault(sizes[config.data.fold], {})[path] = config
    return list(groups.values())


def read_fold_predictions(
    configs: Mapping[Path, ExperimentConfig], dataset: Dataset,
) -> FoldPredictions:
    """Returns the test predictions that the runs wrote.

    Raises:
      FlaxdigitsError: if those of a run are missing, or do not test every example once.
    """
    data = next(iter(configs.values())).data
    parts = [_read_predictions(path / "predictions.npz", len(dataset.class_names))
             for path in configs]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in PREDICTED}
    seeds = len(configs) // data.folds
    if not np.array_equal(np.sort(whole["index"]),
                          np.repeat(np.arange(len(dataset.labels)), seeds)):
        raise FlaxdigitsError("the folds do not test every example once: their predictions "
                              "are not of this data set")
    if data.split == "writers":
        groups = dataset.writers[whole["index"]]
    else:
        groups = np.concatenate([np.full(len(part["index"]), config.data.fold)
                                 for part, config in zip(parts, configs.values(), strict=True)])
    return FoldPredictions(
        dataset.class_names, groups=groups, seeds=seeds,
        group_name="writer" if data.split == "writers" else "fold", **whole)


def _read_predictions(path: Path, classes: int) -> dict[str, np.ndarray]:
    """Returns the test predictions that a run wrote, by the names of `PREDICTED`.

    Raises:
      FlaxdigitsError: if the file cannot be read, or holds other arrays.
    """
    advice = f"--mode=report --workdir={path.parent} writes it again"
    try:
        content = io.BytesIO(read_bytes(path, advice))
        with np.load(content, allow_pickle=False) as file:
            arrays = {name: file[f"test_{name}"] for name in PREDICTED}
    except FlaxdigitsError:
        raise
    except Exception as error:  # zipfile and numpy have a kind for each sort of damage
        raise FlaxdigitsError(f"{path}: cannot be read; {advice}") from error
    rows = len(arrays["index"]) if arrays["index"].ndim else 0
    for name, array in arrays.items():
        shape = (rows, classes) if name == "logits" else (rows,)
        if array.shape != shape or array.dtype.kind != ("f" if name == "logits" else "i"):
            raise FlaxdigitsError(
                f"{path}: test_{name} must be of shape {list(shape)}, got {array.dtype} of "
                f"{list(array.shape)}; {advice}")
    labels = arrays["labels"]
    if rows and not 0 <= labels.min() <= labels.max() < classes:
        raise FlaxdigitsError(f"{path}: test_labels must be from 0 to {classes - 1}; {advice}")
    return arrays
