"""Optimizers, with the defaults of Keras where those of optax differ.

An update clips the gradient, applies the update rule, then decoupled weight decay, then the
learning rate of the schedule. Any other optimizer of optax can be selected by the name of its
function, whose keyword arguments are then the fields: `--set optimizer.name=optax.adabelief`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, cast

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
      learning_rate: the peak learning rate.
      schedule: the learning rate as a function of the step.
      clip_norm: a gradient with a larger global norm is scaled down to it; None for no clipping.
    """

    learning_rate: float = bounded(1e-3, above=0)
    schedule: Schedule = Constant()
    clip_norm: float | None = bounded(None, above=0)

    def build(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        """Returns the optimizer without clipping, which `create` adds.

        Args:
          learning_rate: the learning rate as a function of the step.
        """
        raise NotImplementedError

    def transforms(self, learning_rate: optax.Schedule) -> list[optax.GradientTransformation]:
        """Returns the transformations that `create` chains after the clipping."""
        return [self.build(learning_rate)]

    def create(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        """Returns the complete optimizer, including clipping."""
        clip = [] if self.clip_norm is None else [optax.clip_by_global_norm(self.clip_norm)]
        return optax.chain(*clip, *self.transforms(learning_rate))

    @classmethod
    def resolve(cls, name: str, path: str) -> type[Optimizer] | None:
        """Returns the component for a function of optax, such as `optax.adabelief`."""
        is_prefixed = name.startswith("optax.")
        function = name.removeprefix("optax.")
        if hasattr(optax.contrib, function.removeprefix("contrib.")):
            function = function.removeprefix("contrib.")
        found = _optax_optimizer(function)
        if found is None and is_prefixed:
            raise FlaxdigitsError(f"{path}={name}: {_why_unsupported(function)}")
        if found is not None and not is_prefixed:
            raise FlaxdigitsError(
                f"{path} must be one of {', '.join(sorted(cls.registered))}, or an optimizer of "
                f"optax with its prefix: optax.{name}")
        return found


@dataclasses.dataclass(frozen=True)
class DecayedOptimizer(Optimizer):
    """Base class of the optimizers with an update rule and decoupled weight decay.

    Attributes:
      weight_decay: the decoupled weight decay (Loshchilov and Hutter 2019): every step subtracts
        this fraction of the weights, times the learning rate.
      decayed: the parameters that decay: `kernels`, or `all` for biases and normalization
        parameters too.
    """

    weight_decay: float = bounded(0.0, at_least=0)
    decayed: Literal["kernels", "all"] = "kernels"

    def update_rule(self) -> list[optax.GradientTransformation]:
        """Returns the transformations that convert the gradient into an update direction."""
        raise NotImplementedError

    def transforms(self, learning_rate: optax.Schedule) -> list[optax.GradientTransformation]:
        """Returns the update rule, the weight decay if it is not 0, and the learning rate."""
        decay = [optax.add_decayed_weights(self.weight_decay, mask=self.decay_mask())]
        return [*self.update_rule(), *(decay if self.weight_decay else []),
                optax.scale_by_learning_rate(learning_rate)]

    def decay_mask(self) -> Callable[[optax.Params], optax.Params] | None:
        """Returns a function that maps the parameters to booleans, whether each decays; None: all.
        """
        return _kernels if self.decayed == "kernels" else None


def _kernels(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


@register("adam")
@dataclasses.dataclass(frozen=True)
class Adam(DecayedOptimizer):
    """Adam (Kingma and Ba 2015), with the default epsilon of Keras.

    Epsilon is added to the square root of the bias-corrected second moment, as in algorithm 1 of
    the paper. Keras adds it before the correction, which is equivalent to a larger epsilon in the
    first steps (3.2e-6 instead of 1e-7 in the first one).

    Attributes:
      beta1: the decay rate of the first moment.
      beta2: the decay rate of the second moment.
      epsilon: the constant that is added to the denominator of the update.
    """

    beta1: float = bounded(0.9, at_least=0, below=1)
    beta2: float = bounded(0.999, at_least=0, below=1)
    epsilon: float = bounded(1e-7, above=0)

    def update_rule(self) -> list[optax.GradientTransformation]:
        return [optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)]


@register("adamw")
@dataclasses.dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), by default 0.01 as in PyTorch.
    """

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
      momentum: the momentum; 0 for none.
      nesterov: whether to use Nesterov momentum (Sutskever et al. 2013).
    """

    momentum: float = bounded(0.0, at_least=0, below=1)
    nesterov: bool = False

    def update_rule(self) -> list[optax.GradientTransformation]:
        trace = [optax.trace(self.momentum, self.nesterov)] if self.momentum else []
        return [optax.identity(), *trace]


@register("rmsprop")
@dataclasses.dataclass(frozen=True)
class RMSprop(DecayedOptimizer):
    """RMSprop (Hinton 2012), with epsilon outside of the square root, as in Keras.

    Attributes:
      rho: the decay rate of the second moment.
      epsilon: the constant that is added to the denominator of the update.
      momentum: the momentum; 0 for none.
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
      epsilon: the constant that is added to the denominator of the update.
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
      rho: the decay rate of the means of the squared gradients and of the squared updates.
      epsilon: the constant that is added to both means under the square root.
    """

    rho: float = bounded(0.9, at_least=0, below=1)
    epsilon: float = bounded(1e-7, above=0)

    def update_rule(self) -> list[optax.GradientTransformation]:
        return [optax.scale_by_adadelta(self.rho, self.epsilon)]


@register("lion")
@dataclasses.dataclass(frozen=True)
class Lion(DecayedOptimizer):
    """Lion (Chen et al. 2023); use a tenth to a third of the learning rate of Adam.

    Attributes:
      beta1: the weight of the momentum in the update, relative to the gradient.
      beta2: the decay rate of the momentum.
    """

    beta1: float = bounded(0.9, at_least=0, below=1)
    beta2: float = bounded(0.99, at_least=0, below=1)

    def update_rule(self) -> list[optax.GradientTransformation]:
        return [optax.scale_by_lion(self.beta1, self.beta2)]


@register("lamb")
@dataclasses.dataclass(frozen=True)
class Lamb(Adam):
    """LAMB (You et al. 2020): Adam with weight decay, scaled by the norm of each parameter array.

    Attributes:
      beta1: the decay rate of the first moment.
      beta2: the decay rate of the second moment.
      epsilon: the constant that is added to the denominator of the update.
    """

    def transforms(self, learning_rate: optax.Schedule) -> list[optax.GradientTransformation]:
        """Returns `optax.lamb`."""
        return [optax.lamb(
            learning_rate, self.beta1, self.beta2, self.epsilon, weight_decay=self.weight_decay,
            mask=self.decay_mask())]


@register("muon")
@dataclasses.dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024, `optax.contrib.muon`) for matrices, AdamW for other parameters.

    Attributes:
      beta: the momentum of Muon.
      nesterov: whether Muon uses Nesterov momentum.
      weight_decay: the decoupled weight decay of the matrices.
      beta1: the decay rate of the first moment of AdamW.
      beta2: the decay rate of the second moment of AdamW.
      adam_weight_decay: the decoupled weight decay of the other parameters.
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
    """Returns the component for `optax.<function>` or `optax.contrib.<function>`.

    Its fields are the keyword arguments of the function that are numbers, strings or booleans.
    Returns None if there is no such optimizer, or its update needs more than gradient, state and
    parameters.
    """
    build = _optax_function(function)
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
        arguments = {name: getattr(self, name) for name in names}
        return cast(optax.GradientTransformation, build(learning_rate, **arguments))

    cls = dataclasses.make_dataclass(
        function, fields, bases=(Optimizer,), frozen=True,
        namespace={"build": build_from_fields, "__doc__": inspect.getdoc(build),
                   "__module__": __name__})
    cls.name = f"optax.{function}"
    return cls


def _optax_function(function: str) -> Any:
    return getattr(optax, function, None) or getattr(optax.contrib, function, None)


def _why_unsupported(function: str) -> str:
    """Returns why `_optax_optimizer` returns None, and what to do."""
    build = _optax_function(function)
    if not callable(build):
        return "optax and optax.contrib have no such function"
    with contextlib.suppress(TypeError, ValueError):  # a callable without a signature
        required = [
            name for name, parameter in inspect.signature(build).parameters.items()
            if name != "learning_rate" and parameter.default is inspect.Parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)]
        if required:
            return (f"its arguments without a default, {', '.join(required)}, cannot be set by a "
                    "config: write an optimizer class in an experiment file, whose method build "
                    f"returns {function}(learning_rate, {required[0]}=...)")
    return "is not an optimizer whose update needs only the gradient"


def _hint(name: str, default: Any) -> Any:
    """Returns the type of a keyword argument, from its default; None if a config cannot hold it."""
    if "mask" in name or "dtype" in name or name in ("key", "seed"):
        return None
    if default is None:
        return float | None
    if isinstance(default, tuple) and all(isinstance(item, float) for item in default):
        return tuple[float, ...]
    return type(default) if type(default) in (bool, int, float, str) else None


def _updates_by_gradient(build: Callable[..., Any]) -> bool:
    """Returns whether a function creates an optimizer whose update needs only the gradient.

    The state and the parameters are available, too.
    """
    def update(params: optax.Params) -> optax.Updates:
        optimizer = build(learning_rate=1e-3)
        return optimizer.update(params, optimizer.init(params), params)[0]

    try:
        params = {"kernel": jax.ShapeDtypeStruct((2, 2), "float32")}
        return jax.eval_shape(update, params) == params
    except Exception:  # optax also exports callables that are not optimizers
        return False
