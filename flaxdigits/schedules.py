"""Learning-rate schedules: the learning rate as a function of the step.

The peak of every schedule is the `learning_rate` of the optimizer. All schedules except `onecycle`,
which begins with a rise to the peak, can begin with a linear warmup.
"""

from __future__ import annotations

import dataclasses

from etils import epy

from flaxdigits.components import Component, bounded, count, register
from flaxdigits.errors import FlaxdigitsError

with epy.lazy_imports():
    import jax.numpy as jnp
    import optax


@dataclasses.dataclass(frozen=True)
class Schedule(Component, kind="schedule"):
    """Base class of the schedules; subclass `WarmupSchedule` for a schedule with a warmup."""

    def build(self, peak: float, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """Returns the learning rate as a function of the step, from 0 to `total_steps` - 1.

        Args:
          peak: the `learning_rate` of the optimizer.
          total_steps: the number of steps of the whole run.
          steps_per_epoch: the number of steps in an epoch.

        Raises:
          FlaxdigitsError: if the schedule is not possible for a run of that length.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class WarmupSchedule(Schedule):
    """Base class of the schedules that begin with a linear warmup from 0 to the peak.

    A subclass overrides `after_warmup`.

    Attributes:
      warmup_steps: the number of steps in which the learning rate rises from 0 to the peak.
    """

    warmup_steps: int = bounded(0, at_least=0, below=2**31)

    def after_warmup(self, peak: float, steps: int, steps_per_epoch: int) -> optax.Schedule:
        """Returns the schedule after the warmup, as a function of the steps since its end.

        During the warmup the function is called with negative steps, and its value is not used.

        Args:
          peak: the `learning_rate` of the optimizer.
          steps: the number of steps after the warmup.
          steps_per_epoch: the number of steps in an epoch.
        """
        raise NotImplementedError

    def build(self, peak: float, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """Returns the warmup joined with the schedule after it; see `Schedule.build`."""
        steps = total_steps - self.warmup_steps
        if steps < 1:
            raise FlaxdigitsError(
                f"optimizer.schedule.warmup_steps must be below the run's {total_steps} steps, "
                f"got {self.warmup_steps}")
        schedule = self.after_warmup(peak, steps, steps_per_epoch)
        if not self.warmup_steps:
            return schedule
        warmup = optax.linear_schedule(0.0, peak, self.warmup_steps)
        return optax.join_schedules([warmup, schedule], [self.warmup_steps])


@register("constant")
@dataclasses.dataclass(frozen=True)
class Constant(WarmupSchedule):
    """A constant learning rate."""

    def after_warmup(self, peak: float, steps: int, steps_per_epoch: int) -> optax.Schedule:
        return optax.constant_schedule(peak)


@register("linear")
@dataclasses.dataclass(frozen=True)
class Linear(WarmupSchedule):
    """Linear decay from the peak to `end_factor` times the peak at the end of the run.

    Attributes:
      end_factor: the learning rate at the end of the run, as a fraction of the peak.
    """

    end_factor: float = bounded(0.0, at_least=0)

    def after_warmup(self, peak: float, steps: int, steps_per_epoch: int) -> optax.Schedule:
        return optax.linear_schedule(peak, self.end_factor * peak, steps)


@register("cosine")
@dataclasses.dataclass(frozen=True)
class Cosine(WarmupSchedule):
    """Cosine decay from the peak to `end_factor` times the peak (Loshchilov and Hutter 2017).

    Attributes:
      end_factor: the learning rate at the end of the run, as a fraction of the peak.
    """

    end_factor: float = bounded(0.0, at_least=0, at_most=1)

    def after_warmup(self, peak: float, steps: int, steps_per_epoch: int) -> optax.Schedule:
        return optax.cosine_decay_schedule(peak, steps, alpha=self.end_factor)


@register("onecycle")
@dataclasses.dataclass(frozen=True)
class OneCycle(Schedule):
    """A cosine rise to the peak and a cosine decay (Smith and Topin 2018), with optax's defaults.

    Attributes:
      rise: the fraction of the run during which the learning rate rises.
      start_divisor: the peak divided by the first learning rate.
      end_divisor: the first learning rate divided by the last one.
    """

    rise: float = bounded(0.3, above=0, below=1)
    start_divisor: float = bounded(25.0, at_least=1)
    end_divisor: float = bounded(1e4, at_least=1)

    def build(self, peak: float, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        return optax.cosine_onecycle_schedule(
            max(total_steps, 2), peak, self.rise, self.start_divisor, self.end_divisor)


@register("exponential")
@dataclasses.dataclass(frozen=True)
class Exponential(WarmupSchedule):
    """Exponential decay: the learning rate is multiplied by `factor` every `every_steps` steps.

    Attributes:
      factor: the factor by which the learning rate changes in `every_steps` steps.
      every_steps: the number of steps in which the learning rate changes by `factor`; None: the
        number of steps in an epoch.
      staircase: whether the learning rate is constant within each `every_steps` steps instead of
        changing continuously.
    """

    factor: float = bounded(0.95, above=0, at_most=1)
    every_steps: int | None = count(None)
    staircase: bool = True

    def after_warmup(self, peak: float, steps: int, steps_per_epoch: int) -> optax.Schedule:
        return optax.exponential_decay(
            peak, self.every_steps or steps_per_epoch, self.factor, staircase=self.staircase)


@register("piecewise")
@dataclasses.dataclass(frozen=True)
class Piecewise(WarmupSchedule):
    """A piecewise constant learning rate, which is multiplied by a factor at each boundary.

    Attributes:
      boundaries: the boundaries as fractions of the steps after the warmup, in ascending order.
      factors: the factors by which the learning rate is multiplied, one for each boundary.
    """

    boundaries: tuple[float, ...] = bounded((0.5, 0.75), above=0, below=1)
    factors: tuple[float, ...] = bounded((0.1, 0.1), above=0)

    def check(self, path: str) -> None:
        if len(self.boundaries) != len(self.factors):
            raise FlaxdigitsError(
                f"{path}.factors must contain {len(self.boundaries)} numbers, one for each of "
                f"{path}.boundaries, got {len(self.factors)}")
        if sorted(set(self.boundaries)) != list(self.boundaries):
            raise FlaxdigitsError(
                f"{path}.boundaries must be in strictly ascending order, got {self.boundaries}")

    def after_warmup(self, peak: float, steps: int, steps_per_epoch: int) -> optax.Schedule:
        changes = [round(boundary * steps) for boundary in self.boundaries]
        factors: dict[int, float] = {}
        for step, factor in zip(changes, self.factors, strict=True):
            factors[step] = factors.get(step, 1.0) * factor  # two may round to the same step
        return optax.piecewise_constant_schedule(peak, factors)


@register("inverse_time")
@dataclasses.dataclass(frozen=True)
class InverseTime(WarmupSchedule):
    """The peak divided by 1 + `decay_rate` * step, like `decay` of Keras's legacy optimizers.

    Attributes:
      decay_rate: the rate of the decay; the step is counted from the end of the warmup.
    """

    decay_rate: float = bounded(0.0, at_least=0)

    def after_warmup(self, peak: float, steps: int, steps_per_epoch: int) -> optax.Schedule:
        return lambda step: peak / (1 + self.decay_rate * jnp.maximum(step, 0))
