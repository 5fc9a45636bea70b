"""The train state: everything that a checkpoint needs so that a run is resumed bit for bit."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from flaxdigits.training.freezing import split_params

PRNG = "threefry2x32"  # JAX's default; fixed, so that the user's settings do not change results

# Each use of randomness has its own stream, so that a change of one does not affect the others.
STREAMS = ("init", "order", "dropout", "augmentation")


def stream(seed: int, name: str) -> jax.Array:
    """Returns the PRNG key of a run for the use of randomness `name`, one of `STREAMS`.

    The key is a scalar array of JAX's key type.
    """
    return jax.random.fold_in(jax.random.key(seed, impl=PRNG), STREAMS.index(name))


class Means(NamedTuple):
    """Means over training examples, on the host."""

    loss: float
    accuracy: float


@flax.struct.dataclass
class Sums:
    """Sums over the training examples of some steps, to be divided by `examples`."""

    loss: jax.Array  # [] float32
    correct: jax.Array  # [] int32
    examples: jax.Array  # [] int32

    @classmethod
    def zero(cls) -> "Sums":
        """Returns the sums over no examples."""
        return cls(jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def means(self) -> Means:
        """Returns the means over the examples."""
        examples = int(self.examples)
        return Means(float(self.loss) / examples, int(self.correct) / examples)

    def __add__(self, other: "Sums") -> "Sums":
        return jax.tree.map(jnp.add, self, other)


@flax.struct.dataclass
class TrainState:
    """State after `step` optimizer updates."""

    step: jax.Array  # [] int32
    params: Any
    model_state: Any  # every other collection of the model, such as batch_stats
    opt_state: Any
    ema: Any  # averaged params, or None
    epoch_sums: Sums  # over the epoch so far, with dropout, as Keras's progress bar shows them
    log_sums: Sums  # over the steps since the last multiple of train.log_every

    def variables(self) -> dict[str, Any]:
        """Returns the variables for evaluation, with the averaged params if there are any."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, **self.model_state}


def init_variables(model: nn.Module, seed: int, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Initializes the variables of a model; `image_shape` is (height, width, channels)."""
    return _init(model, stream(seed, "init"), image_shape)


def variables_shapes(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Returns the variables that `init_variables` would return, as `jax.ShapeDtypeStruct`s."""
    return jax.eval_shape(lambda: init_variables(model, 0, image_shape))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _init(model: nn.Module, rng: jax.Array, image_shape: tuple[int, ...]) -> dict[str, Any]:
    variables: Any = model.init(rng, jnp.zeros((1, *image_shape)), None)
    return variables


def create_train_state(
    variables: dict[str, Any], optimizer: optax.GradientTransformation, ema_decay: float | None,
    freeze: Sequence[str] = (),
) -> TrainState:
    """Returns the train state before the first step.

    Args:
      variables: the variables of the model.
      optimizer: the optimizer of the parameters that are trained.
      ema_decay: the decay of the averaged parameters; None: they are not averaged.
      freeze: patterns of the parameters that are not trained, see `flaxdigits.training.freezing`.
    """
    model_state = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=_copy_shared_arrays(optimizer.init(split_params(params, freeze)[0]), params),
        ema=None if ema_decay is None else jax.tree.map(jnp.copy, params),
        epoch_sums=Sums.zero(),
        log_sums=Sums.zero(),
    )


def _copy_shared_arrays(opt_state: optax.OptState, params: Any) -> optax.OptState:
    """Copies the arrays of an optimizer state that are also in `params`, or in it twice.

    Some optimizers, such as `optax.contrib.prodigy`, keep the initial params; the train steps
    donate the state, in which an array must not occur twice.
    """
    known = {id(array) for array in jax.tree.leaves(params)}

    def copy_if_known(array: Any) -> Any:
        if id(array) in known:
            return jnp.copy(array)
        known.add(id(array))
        return array

    return jax.tree.map(copy_if_known, opt_state)


def count_parameters(params: Any) -> int:
    """Returns the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
