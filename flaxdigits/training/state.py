"""The train state: everything that a checkpoint must hold for a run to go on bit for bit."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from flaxdigits.training.freezing import split_params

PRNG = "threefry2x32"  # JAX's default generator, whatever a user's settings name

# Each use of randomness has a stream of its own, so that changing one leaves the others alone.
STREAMS = ("init", "order", "dropout", "augmentation")


def stream(seed: int, name: str) -> jax.Array:
    """The PRNG key of one use of randomness in a run: [] of JAX's key type."""
    return jax.random.fold_in(jax.random.key(seed, impl=PRNG), STREAMS.index(name))


@flax.struct.dataclass
class Sums:
    """Sums over the training examples of some steps, to be divided by `examples`."""

    loss: jax.Array  # [] float32
    correct: jax.Array  # [] int32
    examples: jax.Array  # [] int32

    @classmethod
    def zero(cls) -> "Sums":
        """Nothing summed yet."""
        return cls(jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def means(self) -> tuple[float, float]:
        """Loss and accuracy, on the host."""
        count = int(self.examples)
        return float(self.loss) / count, int(self.correct) / count

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
    epoch_sums: Sums  # over the epoch so far, dropout on, as Keras's progress bar shows them
    log_sums: Sums  # since the last multiple of train.log_every steps

    def variables(self) -> dict[str, Any]:
        """What evaluation applies the model with: the averaged params where there are any."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, **self.model_state}


def init_variables(model: nn.Module, seed: int, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The model's fresh variables for images of `image_shape` ([height, width, channels])."""
    return _init(model, stream(seed, "init"), image_shape)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _init(model: nn.Module, rng: jax.Array, image_shape: tuple[int, ...]) -> dict[str, Any]:
    return model.init(rng, jnp.zeros((1, *image_shape)), None)


def create_train_state(
    variables: dict[str, Any], optimizer: optax.GradientTransformation, ema_decay: float | None,
    freeze: Sequence[str] = (),
) -> TrainState:
    """Returns the state before the first step.

    Args:
      variables: of the model.
      optimizer: of the parameters that are trained.
      ema_decay: of the averaged parameters; None: there are none.
      freeze: patterns of the parameters that are not trained, see `flaxdigits.training.freezing`.
    """
    model_state = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(split_params(params, freeze)[0]),
        ema=None if ema_decay is None else jax.tree.map(jnp.copy, params),
        epoch_sums=Sums.zero(),
        log_sums=Sums.zero(),
    )


def count_parameters(params: Any) -> int:
    """How many numbers are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
