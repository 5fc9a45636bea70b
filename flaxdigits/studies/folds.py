"""All ten folds of the `writers` split: every writer is tested once, by a network that never saw
that hand; and which hands and which characters it fails."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from flaxdigits.config import ExperimentConfig
from flaxdigits.data.dataset import Dataset
from flaxdigits.data.splits import FOLDS
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.loop import Outcome, train_many
from flaxdigits.training.trackers import Tracker


@dataclasses.dataclass(frozen=True)
class FoldRun:
    """One of the runs."""

    fold: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Tested:
    """The test predictions of all folds, one after another; every example is there once a seed.

    Attributes:
      class_names: in the order of the labels.
      index: [predictions] int, of the example in the data set.
      labels: [predictions] int.
      writers: [predictions] int.
      logits: [predictions, classes] float32.
      seeds: how many networks tested each example.
    """

    class_names: tuple[str, ...]
    index: np.ndarray
    labels: np.ndarray
    writers: np.ndarray
    logits: np.ndarray
    seeds: int

    @property
    def predicted(self) -> np.ndarray:
        """[predictions] int."""
        return self.logits.argmax(-1)

    def errors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The writers, and their errors and examples by class: [writers], twice [writers, classes].

        The writer with the most errors comes first.
        """
        names, rows = np.unique(self.writers, return_inverse=True)
        shape = len(names), len(self.class_names)
        errors, examples = np.zeros(shape, int), np.zeros(shape, int)
        np.add.at(examples, (rows, self.labels), 1)
        np.add.at(errors, (rows, self.labels), self.predicted != self.labels)
        order = np.argsort(-errors.sum(1) / examples.sum(1), kind="stable")
        return names[order], errors[order], examples[order]

    def confusions(self, writer: int | None = None) -> list[tuple[int, int, int]]:
        """What was taken for what and how often: (true, predicted, count), the most often first.

        Args:
          writer: whose; None: all.
        """
        wrong = self.predicted != self.labels
        if writer is not None:
            wrong &= self.writers == writer
        pairs, counts = np.unique(
            np.stack([self.labels[wrong], self.predicted[wrong]], axis=1), axis=0,
            return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(pairs[place][0]), int(pairs[place][1]), int(counts[place]))
                for place in order]


def fold_configs(
    config: ExperimentConfig, seeds: Sequence[int], workdir: Path
) -> dict[Path, ExperimentConfig]:
    """The run of each fold and seed by its folder `folds/<fold>/seeds/<seed>`."""
    return {
        workdir / "folds" / str(fold) / "seeds" / str(seed): dataclasses.replace(
            apply_overrides(config, ["data.split=writers", f"data.fold={fold}"]), seed=seed)
        for seed in seeds for fold in range(FOLDS)}


def train_folds(
    configs: Mapping[Path, ExperimentConfig], dataset: Dataset,
    trackers: Callable[[Path], Sequence[Tracker]] = lambda workdir: (),
    tell: Callable[[FoldRun, Outcome], None] = lambda run, outcome: None,
) -> bool:
    """Trains the folds that are not finished yet; whether all are.

    Args:
      configs: of `fold_configs`.
      dataset: that knows its writers.
      trackers: see `flaxdigits.training.loop.train_many`.
      tell: called with each run that has ended, diverged or was paused.

    Raises:
      FlaxdigitsError: as `flaxdigits.training.loop.train` does, also if a fold diverges, since
        its writers could not be tested.
    """
    def told(path: Path, outcome: Outcome) -> None:
        tell(FoldRun(configs[path].data.fold, configs[path].seed), outcome)

    outcomes = train_many(configs, dataset, trackers, told)
    for path, outcome in outcomes.items():
        if outcome.diverged is not None:
            raise FlaxdigitsError(f"{path}: {outcome.diverged}")
    return len(outcomes) == len(configs) and all(
        outcome.result is not None for outcome in outcomes.values())


def read_tested(configs: Mapping[Path, ExperimentConfig], dataset: Dataset) -> Tested:
    """The predictions that the runs wrote.

    Raises:
      FlaxdigitsError: if those of a run are missing, or do not test every example once.
    """
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("index", "labels", "writers", "logits")}
    for path in configs:
        try:
            with np.load(path / "predictions.npz", allow_pickle=False) as arrays:
                for name, values in parts.items():
                    values.append(arrays[f"test_{name}"])
        except (OSError, KeyError, ValueError) as error:
            raise FlaxdigitsError(
                f"{path / 'predictions.npz'}: cannot be read; --mode=report --workdir={path} "
                "writes it again") from error
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    seeds = len(configs) // FOLDS
    if not np.array_equal(np.bincount(whole["index"], minlength=len(dataset.labels)),
                          np.full(len(dataset.labels), seeds)):
        raise FlaxdigitsError("the ten folds do not test every example once: their predictions "
                              "are not of this data set")
    return Tested(dataset.class_names, seeds=seeds, **whole)
