"""What logits are worth: the figures of a split."""

import dataclasses

import numpy as np

from flaxdigits.config import TrainConfig
from flaxdigits.training.losses import example_losses


@dataclasses.dataclass(frozen=True)
class Scores:
    """A split's figures, each example counted once."""

    accuracy: float  # fraction
    loss: float  # mean over the examples
    errors: int
    examples: int


def score(logits: np.ndarray, labels: np.ndarray, config: TrainConfig) -> Scores:
    """The figures of [examples, classes] float32 logits against [examples] int32 labels.

    The loss is the training's own, summed in float64 on the host.
    """
    losses = np.asarray(example_losses(logits, labels, config), np.float64)
    errors = int((logits.argmax(-1) != labels).sum())
    return Scores(
        accuracy=1 - errors / len(labels), loss=float(losses.mean()),
        errors=errors, examples=len(labels))


def flat(name: str, scores: Scores | None) -> dict[str, float | int | None]:
    """`<name>_accuracy` and so on; null where the split does not exist."""
    return {
        f"{name}_{field.name}": None if scores is None else getattr(scores, field.name)
        for field in dataclasses.fields(Scores)
    }
