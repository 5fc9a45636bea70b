"""What an original claimed, and the two protocols by which its replication is judged.

An experiment's file tells it by a function `get_replication()` that returns a `Replication`.
"""

import ast
import dataclasses
from collections.abc import Callable
from pathlib import Path

from flaxdigits.config import ExperimentConfig, flatten, to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import SHIPPED, call_loaded, find, list_experiments, load_experiment
from flaxdigits.overrides import apply_overrides

ORIGINAL, HELD_OUT = "original", "held_out"
FIGURES = ("train_accuracy_running", "train_accuracy", "validation_accuracy", "test_accuracy")
HELD_OUT_METRIC = "test_accuracy"

# What may be changed of a recipe and still be reported as part of it: how much of it was run.
PARTIAL = ("train.epochs", "train.steps", "data.limit")
# What decides nothing about the figures of the last step.
IRRELEVANT = (
    "seed", "train.stop_after", "train.log_every", "train.parallel", "train.together",
    "train.deterministic", "evaluate.batch_size", "evaluate.every_steps",
    "checkpoint.every_steps", "checkpoint.keep")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A figure that an original is said to have reached.

    Attributes:
      figure: of `result.json`, that it is to be compared with.
      accuracy: the claim, a fraction.
      why: why ours may differ; true whatever our runs come to.
      about: how the original calls it, if not like the figure.
      beside: further figures of ours that help to judge it.
    """

    figure: str
    accuracy: float
    why: str
    about: str | None = None
    beside: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Replication:
    """Whose recipe an experiment is, what it is said to reach, and how that is held out.

    Attributes:
      original: its name.
      claims: what it is said to have reached with the experiment's own config.
      held_out: overrides of the config that make an honest protocol of it: test images that
        nothing was chosen by, of a kind that training did not see; none if it is one already.
    """

    original: str
    claims: tuple[Claim, ...]
    held_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class System:
    """An experiment with its replication.

    Attributes:
      config: the recipe.
      replication: what it is compared with.
    """

    config: ExperimentConfig
    replication: Replication

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.config.experiment

    def recipes(self) -> dict[str, ExperimentConfig]:
        """The config of each protocol: `original`, and `held_out` if that is another."""
        recipes = {ORIGINAL: self.config}
        if self.replication.held_out:
            recipes[HELD_OUT] = apply_overrides(self.config, self.replication.held_out)
        return recipes


def load_systems(
    name_or_path: str | None = None,
    adapt: Callable[[ExperimentConfig], ExperimentConfig] = lambda config: config,
) -> list[System]:
    """The experiment of that name or file; None: all shipped ones that replicate something.

    Args:
      name_or_path: as `--experiment` takes it.
      adapt: what is done to each config.

    Raises:
      FlaxdigitsError: if there is no such experiment, or it replicates nothing.
    """
    if name_or_path is None:
        names = [name for name in list_experiments() if _replicates(SHIPPED / f"{name}.py")]
    else:
        path = find(name_or_path, "--experiment", SHIPPED)
        if not _replicates(path):
            raise FlaxdigitsError(
                f"{path}: has no get_replication(), so that there is nothing to compare it with; "
                "experiments/dense_cnn.py shows one")
        names = [name_or_path]
    systems = []
    for name in names:
        config = load_experiment(name)
        replication = call_loaded(
            find(name, "--experiment", SHIPPED), "get_replication", Replication)
        for claim in replication.claims:
            for figure in (claim.figure, *claim.beside):
                if figure not in FIGURES:
                    raise FlaxdigitsError(
                        f"{name}: a claim's figure must be one of {', '.join(FIGURES)}, "
                        f"got {figure!r}")
        systems.append(System(adapt(config), replication))
    return systems


def shortened(system: System, overrides: tuple[str, ...]) -> dict[str, ExperimentConfig]:
    """The system's recipes with overrides that make them shorter but nothing else of them.

    Raises:
      FlaxdigitsError: if they change the recipe.
    """
    configs = {}
    for protocol, recipe in system.recipes().items():
        configs[protocol] = apply_overrides(recipe, overrides)
        if configs[protocol].seed != recipe.seed:
            raise FlaxdigitsError("--mode=replicate runs every seed in turn: name them with "
                                  "--seeds in place of --set seed=")
        changed = differences(configs[protocol], recipe)
        if changed:
            raise FlaxdigitsError(
                f"--mode=replicate runs {system.name} by its recipe, and {changed[0]}; --set may "
                f"change {', '.join(PARTIAL)} and what decides nothing about the result")
    return configs


def differences(config: ExperimentConfig, recipe: ExperimentConfig) -> list[str]:
    """In what a config is not the recipe, beside how much of it was run."""
    there, wanted = flatten(to_dict(config)), flatten(to_dict(recipe))
    return [f"{name} is {there.get(name)!r} in place of {wanted.get(name)!r}"
            for name in sorted(there.keys() | wanted.keys())
            if name not in (*PARTIAL, *IRRELEVANT) and there.get(name) != wanted.get(name)]


def extent(config: ExperimentConfig) -> tuple[int | None, ...]:
    """How much of a recipe is run: `steps`, or else `epochs`, and `limit`."""
    train = config.train
    return train.steps, None if train.steps else train.epochs, config.data.limit


def folder_name(protocol: str, config: ExperimentConfig, recipe: ExperimentConfig) -> str:
    """The protocol's, with how much is run if that is not all, like `original,steps=2,limit=60`."""
    if extent(config) == extent(recipe):
        return protocol
    parts = zip(("steps", "epochs", "limit"), extent(config), strict=True)
    return ",".join([protocol, *(f"{name}={value}" for name, value in parts if value is not None)])


def _replicates(path: Path) -> bool:
    """Whether a file has the function; nothing is executed."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == "get_replication"
               for node in body)
