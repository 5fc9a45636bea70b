"""From an `OptimizerConfig` to an optax optimizer, with Keras's arithmetic where the two differ."""

import jax
import jax.numpy as jnp
import optax

from flaxdigits.config import OptimizerConfig
from flaxdigits.errors import FlaxdigitsError


def create_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, from 0 to `total_steps` - 1.

    Raises:
      FlaxdigitsError: if the warm-up is not shorter than the run.
    """
    peak, after = config.learning_rate, total_steps - config.warmup_steps
    if after < 1:
        raise FlaxdigitsError(
            f"optimizer.warmup_steps must be below the run's {total_steps} steps, "
            f"got {config.warmup_steps}")
    schedule = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, after),
        # Smith and Topin (2018), with optax's defaults: 30 % rising from a 25th of the peak.
        "onecycle": lambda: optax.cosine_onecycle_schedule(max(total_steps, 2), peak),
        # During warm-up, when its value does not count, it is asked for steps below 0.
        "inverse_time": lambda: lambda step: peak / (
            1 + config.decay_rate * jnp.maximum(step, 0)),
    }[config.schedule]()
    if not config.warmup_steps:
        return schedule
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.join_schedules([warmup, schedule], [config.warmup_steps])


def create_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The optimizer: clipping, then the method, then decoupled weight decay, then the rate.

    RMSprop adds epsilon outside the square root, as Keras does. Adam adds it to the root of the
    bias-corrected second moment, as Kingma and Ba's (2015) algorithm 1 does; Keras adds it before
    the correction, so that in Keras epsilon counts for more in the first steps (3.2e-6 in place of
    1e-7 in the very first): the one constant of the originals that is not taken over to the letter.
    """
    method = {
        "adam": lambda: optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        "sgd": optax.identity,
        "rmsprop": lambda: optax.scale_by_rms(
            decay=config.rho, eps=config.epsilon, eps_in_sqrt=False),
        "adadelta": lambda: optax.scale_by_adadelta(config.rho, config.epsilon),
    }[config.name]()
    parts = [method]
    if config.clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.momentum and config.name in ("sgd", "rmsprop"):
        parts.append(optax.trace(config.momentum))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_is_kernel))
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


def _is_kernel(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
