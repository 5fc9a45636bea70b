"""Cross-validation: trains all folds of the `writers` or the `kfold` split.

Every writer, or every example, is in the test part of exactly one fold, so each is tested by a
network that was not trained on it.
"""

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
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.training.results import Outcome, ReportWriter, no_report
from flaxdigits.training.runs import train_many
from flaxdigits.training.trackers import Tracker

PREDICTED = ("index", "labels", "logits")


@dataclasses.dataclass(frozen=True)
class FoldRun:
    """The fold and the seed of a run."""

    fold: int
    seed: int


@dataclasses.dataclass(frozen=True)
class FoldPredictions:
    """The test predictions of all folds, concatenated. Every example occurs once for each seed.

    Attributes:
      class_names: the names of the classes in the order of the labels.
      index: [predictions] int, the indices of the examples in the data set.
      labels: [predictions] int.
      logits: [predictions, classes] float32.
      groups: [predictions] int, the writer of each example; with the `kfold` split the fold.
      group_name: "writer" or "fold".
      seeds: the number of seeds.
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
        """The predicted classes: [predictions] int."""
        return self.logits.argmax(-1)

    def errors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts errors and examples by group and class.

        Returns:
          The groups, [groups] int, sorted by error rate in descending order; and the numbers of
          errors and of examples, both [groups, classes] int.
        """
        names, rows = np.unique(self.groups, return_inverse=True)
        shape = len(names), len(self.class_names)
        errors, examples = np.zeros(shape, int), np.zeros(shape, int)
        np.add.at(examples, (rows, self.labels), 1)
        np.add.at(errors, (rows, self.labels), self.predicted != self.labels)
        order = np.argsort(-errors.sum(1) / examples.sum(1), kind="stable")
        return names[order], errors[order], examples[order]

    def confusions(self, group: int | None = None) -> list[tuple[int, int, int]]:
        """Returns the confused classes as (true, predicted, count), the most frequent pair first.

        Args:
          group: count only the examples of this group; None: of all.
        """
        wrong = self.predicted != self.labels
        if group is not None:
            wrong &= self.groups == group
        pairs, counts = np.unique(
            np.stack([self.labels[wrong], self.predicted[wrong]], axis=1), axis=0,
            return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(pairs[position][0]), int(pairs[position][1]), int(counts[position]))
                for position in order]


def fold_configs(
    config: ExperimentConfig, seeds: Sequence[int], workdir: Path
) -> dict[Path, ExperimentConfig]:
    """Returns the config of each fold and seed by its run folder `folds/<fold>/seeds/<seed>`.

    The folds consist of examples if the config has `data.split=kfold`, otherwise of writers.
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
    write_report: ReportWriter = no_report, progress: Progress = NO_PROGRESS,
) -> bool:
    """Trains the unfinished folds.

    Args:
      configs: the output of `fold_configs`.
      dataset: the data set, with writers for the `writers` split.
      trackers: see `flaxdigits.training.runs.train_many`.
      on_end: called with each run that has finished, diverged or was paused.
      write_report: see `flaxdigits.training.runs.train_many`.
      progress: see `flaxdigits.training.runs.train_many`.

    Returns:
      Whether all folds have finished; False if some were paused.

    Raises:
      FlaxdigitsError: as `flaxdigits.training.runs.train_many` does; also if a fold diverges, since
        its examples cannot be tested.
    """
    def report(path: Path, outcome: Outcome) -> None:
        on_end(FoldRun(configs[path].data.fold, configs[path].seed), outcome)

    outcomes: dict[Path, Outcome] = {}
    for group in _groups_of_same_size(configs, dataset):
        ended = train_many(group, dataset, trackers, report, write_report, progress)
        outcomes |= ended
        if len(ended) < len(group) or any(outcome.signal for outcome in ended.values()):
            break
    for path, outcome in outcomes.items():
        if outcome.diverged is not None:
            raise FlaxdigitsError(f"{path}: {outcome.diverged}")
    return len(outcomes) == len(configs) and all(
        outcome.result is not None for outcome in outcomes.values())


def _groups_of_same_size(
    configs: Mapping[Path, ExperimentConfig], dataset: Dataset
) -> list[dict[Path, ExperimentConfig]]:
    """Returns groups of runs with the same number of training examples, which share a program."""
    sizes: dict[int, int] = {}  # numbers of training examples by fold
    groups: dict[int, dict[Path, ExperimentConfig]] = {}
    for path, config in configs.items():
        if config.data.fold not in sizes:
            sizes[config.data.fold] = len(split_indices(config.data, dataset)["train"])
        groups.setdefault(sizes[config.data.fold], {})[path] = config
    return list(groups.values())


def read_fold_predictions(
    configs: Mapping[Path, ExperimentConfig], dataset: Dataset,
) -> FoldPredictions:
    """Reads the test predictions of all folds.

    Raises:
      FlaxdigitsError: if the predictions of a run cannot be read, or the folds do not test every
        example exactly once.
    """
    data = next(iter(configs.values())).data
    parts = [_read_predictions(path / "predictions.npz", len(dataset.class_names))
             for path in configs]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in PREDICTED}
    seeds = len(configs) // data.folds
    if not np.array_equal(np.sort(arrays["index"]),
                          np.repeat(np.arange(len(dataset.labels)), seeds)):
        raise FlaxdigitsError(
            "the predictions of the folds do not contain every example of the data set exactly "
            "once for each seed: they belong to another data set; choose another workdir")
    if data.split == "writers":
        groups = dataset.writers[arrays["index"]]
    else:
        groups = np.concatenate([np.full(len(part["index"]), config.data.fold)
                                 for part, config in zip(parts, configs.values(), strict=True)])
    return FoldPredictions(
        dataset.class_names, groups=groups, seeds=seeds,
        group_name="writer" if data.split == "writers" else "fold", **arrays)


def _read_predictions(path: Path, classes: int) -> dict[str, np.ndarray]:
    """Reads the test predictions of a run: an array for each name of `PREDICTED`.

    Raises:
      FlaxdigitsError: if the file cannot be read, or its arrays have other shapes or types.
    """
    advice = f"the mode report with workdir={path.parent} writes it again"
    try:
        content = io.BytesIO(read_bytes(path, advice))
        with np.load(content, allow_pickle=False) as file:
            arrays = {name: file[f"test_{name}"] for name in PREDICTED}
    except FlaxdigitsError:
        raise
    except Exception as error:  # zipfile and NumPy raise many types
        raise FlaxdigitsError(f"{path}: cannot be read; {advice}") from error
    rows = len(arrays["index"]) if arrays["index"].ndim else 0
    for name, array in arrays.items():
        shape = (rows, classes) if name == "logits" else (rows,)
        kind = "float" if name == "logits" else "int"
        if array.shape != shape or array.dtype.kind != kind[0]:
            raise FlaxdigitsError(
                f"{path}: test_{name} must be an array of {kind}s of shape {list(shape)}, got "
                f"{array.dtype} of shape {list(array.shape)}; {advice}")
    labels = arrays["labels"]
    if rows and not 0 <= labels.min() <= labels.max() < classes:
        raise FlaxdigitsError(f"{path}: test_labels must be from 0 to {classes - 1}; {advice}")
    return arrays
