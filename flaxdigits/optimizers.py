"""Optimizers, with Keras's arithmetic where it and optax differ.

An update clips the gradient, applies the update rule, then decoupled weight decay, then the
learning rate of the schedule. Any optimizer of optax can also be had by its function's name, with
the function's own keyword arguments as fields: `--set optimizer.name=optax.adabelief`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

from etils import epy

from flaxdigits.components import Component, bounded, register
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.schedules import Constant, Schedule

with epy.lazy_imports():
    import jax
    import optax


@dataclasses.dataclass(frozen=True)
class Optimizer(Component, kind="optimizer"):
    """Base class of the optimizers; a subclass overrides `build`.

    Attributes:
      learning_rate: the peak of the schedule.
      schedule: the rate over the run.
      clip_norm: the largest global norm of the gradient; a larger one is scaled down to it.
    """

    learning_rate: float = bounded(1e-3, above=0)
    schedule: Schedule = Constant()
    clip_norm: float | None = bounded(None, above=0)

    def build(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        """Returns the optimizer; clipping to `clip_norm` is added before it by `create`.

        Args:
          learning_rate: the schedule's rate as a function of the step.
        """
        raise NotImplementedError

    def transforms(self, learning_rate: optax.Schedule) -> list[optax.GradientTransformation]:
        """Returns what `create` chains after the clipping."""
        return [self.build(learning_rate)]

    def create(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        """Returns the whole optimizer, clipping included."""
        clip = [] if self.clip_norm is None else [optax.clip_by_global_norm(self.clip_norm)]
        return optax.chain(*clip, *self.transforms(learning_rate))

    @classmethod
    def resolve(cls, name: str, path: str) -> type[Optimizer] | None:
        """Returns the component of a function of optax, such as `optax.adabelief`."""
        is_prefixed = name.startswith("optax.")
        found = _optax_optimizer(name.removeprefix("optax."))
        if found is None and is_prefixed:
            raise FlaxdigitsError(
                f"{path}={name}: there is no such function in optax or optax.contrib, or it is no "
                "optimizer that needs the gradient alone")
        if found is not None and not is_prefixed:
            raise FlaxdigitsError(
                f"{path} must be one of {', '.join(sorted(cls.registered))}, or an optimizer of "
                f"optax with its prefix: optax.{name}")
        return found


@dataclasses.dataclass(frozen=True)
class DecayedOptimizer(Optimizer):
    """Base class of optimizers: an update rule, decoupled weight decay, the learning rate.

    Attributes:
      weight_decay: decoupled from the gradient (Loshchilov and Hutter 2019): every step subtracts
        this fraction of the weights, times the learning rate.
      decayed: which parameters are decayed: kernels only, or biases and norms too.
    """

    weight_decay: float = bounded(0.0, at_least=0)
    decayed: Literal["kernels", "all"] = "kernels"

    def update_rule(self) -> list[optax.GradientTransformation]:
        """Returns the transforms that turn the gradient into an update direction."""
        raise NotImplementedError

    def transforms(self, learning_rate: optax.Schedule) -> list[optax.GradientTransformation]:
        """Returns the method, the weight decay if there is any, and the learning rate."""
        decay = [optax.add_decayed_weights(self.weight_decay, mask=self.decay_mask())]
        return [*self.update_rule(), *(decay if self.weight_decay else []),
                optax.scale_by_learning_rate(learning_rate)]

    def decay_mask(self) -> Callable[[optax.Params], optax.Params] | None:
        """Returns the function from the parameters to which of them decay; None: all."""
        return _kernels if self.decayed == "kernels" else None


def _kernels(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


@register("adam")
@dataclasses.dataclass(frozen=True)
class Adam(DecayedOptimizer):
    """Adam (Kingma and Ba 2015), with Keras's default epsilon.

    Epsilon is added to the root of the bias-corrected second moment, as in the paper's algorithm 1;
    Keras adds it before the correction, so that in Keras epsilon counts for more in the first
    steps (3.2e-6 in place of 1e-7 in the very first).

    Attributes:
      beta1: the decay of the mean of the gradient.
      beta2: the decay of the mean of the squared gradient.
      epsilon: is added to the denominator of the update.
    """

    beta1: float = bounded(0.9, at_least=0, below=1)
    beta2: float = bounded(0.999, at_least=0, below=1)
    epsilon: float = bounded(1e-7, above=0)

    def update_rule(self) -> list[optax.GradientTransformation]:
        return [optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)]


@register("adamw")
@dataclasses.dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), of 0.01 as in PyTorch."""

    weight_decay: float = bounded(0.01, at_least=0)


@register("nadamw")
@dataclasses.dataclass(frozen=True)
class NAdamW(AdamW):
    """AdamW with Nesterov momentum (Dozat 2016)."""

    def update_rule(self) -> list[optax.GradientTransformation]:
        return [optax.scale_by_adam(self.beta1, self.beta2, self.epsilon, nesterov=True)]


@register("sgd")
@dataclasses.dataclass(frozen=True)
class SGD(DecayedOptimizer):
    """Stochastic gradient descent.

    Attributes:
      momentum: the decay of the momentum; 0 is none.
      nesterov: whether the gradient is taken as if one step ahead (Sutskever et al. 2013).
    """

    momentum: float = bounded(0.0, at_least=0, below=1)
    nesterov: bool = False

    def update_rule(self) -> list[optax.GradientTransformation]:
        trace = [optax.trace(self.momentum, self.nesterov)] if self.momentum else []
        return [optax.identity(), *trace]


@register("rmsprop")
@dataclasses.dataclass(frozen=True)
class RMSprop(DecayedOptimizer):
    """RMSprop (Hinton 2012), with epsilon outside the square root, as in Keras.

    Attributes:
      rho: the decay of the mean of the squared gradient.
      epsilon: is added to the denominator of the update.
      momentum: the decay of the momentum; 0 is none.
    """

    rho: float = bounded(0.9, at_least=0, below=1)
    epsilon: float = bounded(1e-7, above=0)
    momentum: float = bounded(0.0, at_least=0, below=1)

    def update_rule(self) -> list[optax.GradientTransformation]:
        trace = [optax.trace(self.momentum)] if self.momentum else []
        return [optax.scale_by_rms(decay=self.rho, eps=self.epsilon, eps_in_sqrt=False), *trace]


@register("adagrad")
@dataclasses.dataclass(frozen=True)
class Adagrad(DecayedOptimizer):
    """Adagrad (Duchi et al. 2011).

    Attributes:
      initial_accumulator: the initial sum of the squared gradients.
      epsilon: is added to the denominator of the update.
    """

    initial_accumulator: float = bounded(0.1, at_least=0)
    epsilon: float = bounded(1e-7, above=0)

    def update_rule(self) -> list[optax.GradientTransformation]:
        return [optax.scale_by_rss(self.initial_accumulator, self.epsilon)]


@register("adadelta")
@dataclasses.dataclass(frozen=True)
class Adadelta(DecayedOptimizer):
    """Adadelta (Zeiler 2012).

    Attributes:
      rho: the decay of the means of the squared gradients and updates.
      epsilon: is added to both means under the square root.
    """

    rho: float = bounded(0.9, at_least=0, below=1)
    epsilon: float = bounded(1e-7, above=0)

    def update_rule(self) -> list[optax.GradientTransformation]:
        return [optax.scale_by_adadelta(self.rho, self.epsilon)]


@register("lion")
@dataclasses.dataclass(frozen=True)
class Lion(DecayedOptimizer):
    """Lion (Chen et al. 2023), to be used with a tenth to a third of Adam's learning rate.

    Attributes:
      beta1: the share of the momentum in the update, beside the gradient.
      beta2: the decay of the momentum.
    """

    beta1: float = bounded(0.9, at_least=0, below=1)
    beta2: float = bounded(0.99, at_least=0, below=1)

    def update_rule(self) -> list[optax.GradientTransformation]:
        return [optax.scale_by_lion(self.beta1, self.beta2)]


@register("lamb")
@dataclasses.dataclass(frozen=True)
class Lamb(Adam):
    """LAMB (You et al. 2020): Adam's direction with the decay, scaled to the norm of each array.

    Attributes:
      beta1: the decay of the mean of the gradient.
      beta2: the decay of the mean of the squared gradient.
      epsilon: is added to the denominator of the update.
    """

    def transforms(self, learning_rate: optax.Schedule) -> list[optax.GradientTransformation]:
        """Returns optax's LAMB."""
        return [optax.lamb(
            learning_rate, self.beta1, self.beta2, self.epsilon, weight_decay=self.weight_decay,
            mask=self.decay_mask())]


@register("muon")
@dataclasses.dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024, `optax.contrib.muon`) for matrices, AdamW for everything else.

    Attributes:
      beta: the decay of the momentum.
      nesterov: whether the momentum is Nesterov's.
      weight_decay: the decoupled weight decay of the matrices.
      beta1: the decay of the mean of the gradient in AdamW.
      beta2: the decay of the mean of the squared gradient in AdamW.
      adam_weight_decay: the weight decay of the parameters that AdamW updates.
    """

    beta: float = bounded(0.95, at_least=0, below=1)
    nesterov: bool = True
    weight_decay: float = bounded(0.0, at_least=0)
    beta1: float = bounded(0.9, at_least=0, below=1)
    beta2: float = bounded(0.999, at_least=0, below=1)
    adam_weight_decay: float = bounded(0.0, at_least=0)

    def build(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.contrib.muon(
            learning_rate, beta=self.beta, nesterov=self.nesterov, weight_decay=self.weight_decay,
            adam_b1=self.beta1, adam_b2=self.beta2, adam_weight_decay=self.adam_weight_decay)


@functools.cache
def _optax_optimizer(function: str) -> type[Optimizer] | None:
    """Returns the component of `optax.<function>` or `optax.contrib.<function>`.

    Its fields are the function's keyword arguments that hold numbers, strings or booleans. None
    if there is no such optimizer, or its update takes more than gradient, state and parameters.
    """
    build = getattr(optax, function, None) or getattr(optax.contrib, function, None)
    if not callable(build) or not _updates_by_gradient(build):
        return None
    inherited = {field.name for field in dataclasses.fields(Optimizer)}
    fields = [
        (name, hint, dataclasses.field(default=parameter.default))
        for name, parameter in inspect.signature(build).parameters.items()
        if name not in inherited and (hint := _hint(name, parameter.default)) is not None]
    names = [name for name, _, _ in fields]

    def build_from_fields(
        self: Optimizer, learning_rate: optax.Schedule
    ) -> optax.GradientTransformation:
        return build(learning_rate, **{name: getattr(self, name) for name in names})

    cls = dataclasses.make_dataclass(
        function, fields, bases=(Optimizer,), frozen=True,
        namespace={"build": build_from_fields, "__doc__": inspect.getdoc(build),
                   "__module__": __name__})
    cls.name = f"optax.{function}"
    return cls


def _hint(name: str, default: Any) -> Any:
    """Returns the type of a keyword argument by its default; None if no config can hold it."""
    if "mask" in name or "dtype" in name or name in ("key", "seed"):
        return None
    if default is None:
        return float | None
    if isinstance(default, tuple) and all(isinstance(item, float) for item in default):
        return tuple[float, ...]
    return type(default) if type(default) in (bool, int, float, str) else None


def _updates_by_gradient(build: Callable[..., Any]) -> bool:
    """Returns whether this makes an optimizer whose update takes nothing beside the gradient."""
    def update(params: optax.Params) -> optax.Updates:
        optimizer = build(learning_rate=1e-3)
        return optimizer.update(params, optimizer.init(params), params)[0]

    try:
        params = {"kernel": jax.ShapeDtypeStruct((2, 2), "float32")}
        return jax.eval_shape(update, params) == params
    except Exception:  # optax exports other callables too
        return False
