"""How the cost of training grows with examples, batch and parameters: one experiment in sizes."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from flaxdigits.benchmark.compare import Timings
from flaxdigits.config import ExperimentConfig
from flaxdigits.overrides import apply_overrides

AS_IT_IS = "as it is"
ROUNDS = 3
SECONDS = 3.0  # of a timing of the experiment as it is; others take as many steps, or an epoch

# How a size is shown: its extent and as its cost, by what grows.
MEASURES = {
    "examples": ("examples", "epoch_seconds"),
    "batch": ("batch_size", "milliseconds"),
    "parameters": ("parameters", "milliseconds"),
}


@dataclasses.dataclass(frozen=True)
class Size:
    """A variant of an experiment.

    Attributes:
      grows: what is another than in the experiment as it is; None: nothing.
      overrides: that make it so.
    """

    grows: Literal["examples", "batch", "parameters"] | None
    overrides: tuple[str, ...] = ()


def sizes(config: ExperimentConfig, examples: int) -> dict[str, Size]:
    """By their names: as it is, fewer examples, other batches, other widths.

    What would be the same again is left out: other widths of a network that has none, say.

    Args:
      config: of the experiment.
      examples: that it trains on.
    """
    batch_size, model = config.train.batch_size, config.model
    found = {AS_IT_IS: Size(None)}
    for share in (4, 2):
        found[f"1/{share} of the examples"] = Size(
            "examples", (f"data.limit={math.ceil(examples / share)}",))
    for label, factor in (("half the batch", 0.5), ("twice the batch", 2)):
        found[label] = Size("batch", (f"train.batch_size={math.ceil(factor * batch_size)}",))
    for label, factor in (("half as wide", 0.5), ("twice as wide", 2)):
        found[label] = Size("parameters", tuple(
            f"model.{name}={','.join(str(math.ceil(factor * width)) for width in widths)}"
            for name in ("filters", "dense") if (widths := getattr(model, name, ()))))
    configs: list[ExperimentConfig] = []
    for label in list(found):
        changed = apply_overrides(config, found[label].overrides)
        if changed in configs:
            del found[label]
        configs.append(changed)
    return found


def figures(timings: Timings) -> dict[str, Any]:
    """The measurements of a size: what it asks for, what that takes, and the memory bound."""
    facts, milliseconds = timings.facts, timings.median
    return {
        **{name: facts[name] for name in (
            "examples", "batch_size", "parameters", "step_flops", "memory_bound")},
        "milliseconds": milliseconds, "peak_bytes": timings.peak_bytes,
        "epoch_seconds": facts["steps_per_epoch"] * milliseconds / 1000,
        "timings": timings.milliseconds}


def exponents(measured: dict[str, dict[str, Any]], found: dict[str, Size]) -> dict[str, float]:
    """By which power of its extent the cost grows: 1 is in proportion.

    The slope of a line by least squares through the logarithms.

    Args:
      measured: `figures` of each size.
      found: the sizes.

    Returns:
      powers by what grows, of what was varied.
    """
    powers = {}
    for grows, (extent, cost) in MEASURES.items():
        of = [measured[label] for label, size in found.items() if size.grows in (None, grows)]
        if len({one[extent] for one in of}) > 1:
            powers[grows] = float(np.polyfit(
                *(np.log([one[name] for one in of]) for name in (extent, cost)), 1)[0])
    return powers
