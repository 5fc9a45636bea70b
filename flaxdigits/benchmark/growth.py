"""Variants of an experiment with other sizes, and how the cost of training grows with them."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from flaxdigits.benchmark.compare import Timings
from flaxdigits.config import ExperimentConfig
from flaxdigits.overrides import apply_overrides

BASE = "base"
ROUNDS = 3
SECONDS = 3.0  # duration of a timing of the base; other sizes: as many steps, at most an epoch

# The measured size and cost, for each variable.
MEASURES = {
    "examples": ("examples", "epoch_seconds"),
    "batch": ("batch_size", "milliseconds"),
    "parameters": ("parameters", "milliseconds"),
}


@dataclasses.dataclass(frozen=True)
class Size:
    """A variant of an experiment with another size.

    Attributes:
      grows: the variable that differs from the base; None for the base.
      overrides: the overrides of the config.
    """

    grows: Literal["examples", "batch", "parameters"] | None
    overrides: tuple[str, ...] = ()


def sizes(config: ExperimentConfig, examples: int) -> dict[str, Size]:
    """Returns the sizes by label: the base, fewer examples, other batch sizes, other widths.

    Sizes that do not differ from others are omitted, such as other widths of a network without
    adjustable widths.

    Args:
      config: the config of the experiment.
      examples: the number of its training examples.
    """
    batch_size, model = config.train.batch_size, config.model
    found = {BASE: Size(None)}
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


def measurements(timings: Timings) -> dict[str, Any]:
    """Returns the measurements of a size: its numbers, timings, peak memory and memory bound."""
    facts, milliseconds = timings.facts, timings.median
    return {
        **{name: facts[name] for name in (
            "examples", "batch_size", "parameters", "step_flops", "memory_bound")},
        "milliseconds": milliseconds, "peak_bytes": timings.peak_bytes,
        "epoch_seconds": facts["steps_per_epoch"] * milliseconds / 1000,
        "timings": timings.milliseconds}


def exponents(measured: dict[str, dict[str, Any]], found: dict[str, Size]) -> dict[str, float]:
    """Returns the exponent with which the cost grows with each variable; 1 is proportional growth.

    An exponent is the slope of a least-squares line through the points (log(size), log(cost)).

    Args:
      measured: the `measurements` of each size.
      found: the sizes.

    Returns:
      The exponents by variable, for the variables that were varied.
    """
    powers = {}
    for grows, (size_name, cost_name) in MEASURES.items():
        rows = [measured[label] for label, size in found.items() if size.grows in (None, grows)]
        if len({row[size_name] for row in rows}) > 1:
            log_sizes, log_costs = (
                np.log([row[name] for row in rows]) for name in (size_name, cost_name))
            powers[grows] = float(np.polyfit(log_sizes, log_costs, 1)[0])
    return powers
