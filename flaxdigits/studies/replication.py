"""The claims of published systems, and the protocols by which they are replicated.

An experiment file declares the claims with a function `get_replication()` that returns a
`Replication`.
"""

import ast
import dataclasses
from collections.abc import Callable
from pathlib import Path

from flaxdigits.config import ExperimentConfig, flatten, to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import BUILT_IN, call_loaded, find, list_experiments, load_experiment
from flaxdigits.old_names import accept_old_names
from flaxdigits.overrides import apply_overrides

ORIGINAL_PROTOCOL, HELD_OUT_PROTOCOL = "original", "held_out"
ACCURACIES = ("train_accuracy_running", "train_accuracy", "validation_accuracy", "test_accuracy")
HELD_OUT_METRIC = "test_accuracy"

# Fields that only shorten a recipe: a run that differs in them is reported as partial.
PARTIAL = ("train.epochs", "train.steps", "data.limit")
# Fields that do not affect the metrics of the last step.
IRRELEVANT = (
    "seed", "train.stop_after", "train.log_every", "train.parallel", "train.seeds_per_call",
    "train.deterministic", "evaluate.batch_size", "evaluate.every_steps",
    "checkpoint.every_steps", "checkpoint.keep")


@accept_old_names(figure="metric", beside="extra_metrics")
@dataclasses.dataclass(frozen=True)
class Claim:
    """An accuracy that the authors of a system claim.

    Attributes:
      metric: the metric of `result.json` to compare the claim with.
      accuracy: the claimed accuracy, a fraction.
      why: why a replication may differ from the claim; printed whatever its results are.
      about: the authors' name for the accuracy, if it differs from the name of the metric.
      extra_metrics: further metrics of the replication to show.
    """

    metric: str
    accuracy: float
    why: str
    about: str | None = None
    extra_metrics: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Replication:
    """The published system that an experiment replicates, and what its authors claim.

    Attributes:
      original: the name of the published system.
      claims: the claimed accuracies, for the config of the experiment.
      held_out: overrides of the config for a protocol with held-out test images: images on which no
        choice was based, by writers that are not in the training split. Empty if the original
        protocol already has such images.
    """

    original: str
    claims: tuple[Claim, ...]
    held_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class System:
    """An experiment that replicates a published system.

    Attributes:
      config: the config of the experiment.
      replication: the published system and its claims.
    """

    config: ExperimentConfig
    replication: Replication

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self.config.experiment

    def recipes(self) -> dict[str, ExperimentConfig]:
        """Returns the config of each protocol: `original`, and `held_out` if it differs."""
        recipes = {ORIGINAL_PROTOCOL: self.config}
        if self.replication.held_out:
            recipes[HELD_OUT_PROTOCOL] = apply_overrides(self.config, self.replication.held_out)
        return recipes


def load_systems(
    name_or_path: str | None = None,
    adapt: Callable[[ExperimentConfig], ExperimentConfig] = lambda config: config,
) -> list[System]:
    """Loads the experiments that replicate a published system.

    Args:
      name_or_path: the name or path of one experiment; None: all built-in ones.
      adapt: a function that is applied to each config.

    Raises:
      FlaxdigitsError: if there is no such experiment, its config is invalid, it has no
        `get_replication()`, or a claim has a metric that is not one of `ACCURACIES`.
    """
    if name_or_path is None:
        names = [name for name in list_experiments() if _replicates(BUILT_IN / f"{name}.py")]
    else:
        path = find(name_or_path, "experiment", BUILT_IN)
        if not _replicates(path):
            raise FlaxdigitsError(
                f"{path}: has no get_replication(), so there is no claim to compare it with; "
                "experiments/dense_cnn.py has an example")
        names = [name_or_path]
    systems = []
    for name in names:
        config = load_experiment(name)
        replication = call_loaded(
            find(name, "experiment", BUILT_IN), "get_replication", Replication)
        for claim in replication.claims:
            for metric in (claim.metric, *claim.extra_metrics):
                if metric not in ACCURACIES:
                    raise FlaxdigitsError(
                        f"{name}: the metric of a claim must be one of {', '.join(ACCURACIES)}, "
                        f"got {metric!r}")
        systems.append(System(adapt(config), replication))
    return systems


def shortened_recipes(system: System, overrides: tuple[str, ...]) -> dict[str, ExperimentConfig]:
    """Applies overrides that shorten the recipes of a system.

    Returns:
      The config of each protocol.

    Raises:
      FlaxdigitsError: if the overrides change anything else that affects the result.
    """
    configs = {}
    for protocol, recipe in system.recipes().items():
        configs[protocol] = apply_overrides(recipe, overrides)
        if configs[protocol].seed != recipe.seed:
            raise FlaxdigitsError("a replication trains several seeds: set them with seeds "
                                  "instead of seed=")
        changed = differences(configs[protocol], recipe)
        if changed:
            raise FlaxdigitsError(
                f"a replication trains the recipe of {system.name}, but {changed[0]}; overrides "
                f"may change {', '.join(PARTIAL)} and fields that do not affect the result")
    return configs


def differences(config: ExperimentConfig, recipe: ExperimentConfig) -> list[str]:
    """Returns how a config differs from a recipe, except in fields that only shorten it."""
    actual, expected = flatten(to_dict(config)), flatten(to_dict(recipe))
    return [f"{name} is {actual.get(name)!r} instead of {expected.get(name)!r}"
            for name in sorted(actual.keys() | expected.keys())
            if name not in (*PARTIAL, *IRRELEVANT) and actual.get(name) != expected.get(name)]


def extent(config: ExperimentConfig) -> tuple[int | None, ...]:
    """Returns the length and the data limit of a run: (steps, epochs if steps is None, limit)."""
    train = config.train
    return train.steps, None if train.steps else train.epochs, config.data.limit


def folder_name(protocol: str, config: ExperimentConfig, recipe: ExperimentConfig) -> str:
    """Returns the folder name of a protocol's runs, such as `original` or `original,steps=2`."""
    if extent(config) == extent(recipe):
        return protocol
    parts = zip(("steps", "epochs", "limit"), extent(config), strict=True)
    return ",".join([protocol, *(f"{name}={value}" for name, value in parts if value is not None)])


def _replicates(path: Path) -> bool:
    """Returns whether a file defines `get_replication()`. The file is not executed."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == "get_replication"
               for node in body)
