"""Optimizers and schedules over several steps against Keras's formulas typed in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxdigits.config import OptimizerConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.training.optimizers import create_optimizer, create_schedule

STEPS = 8


def tree(seed: int, scale: float = 1.0) -> dict:
    rng = np.random.default_rng(seed)
    return {"Conv_0": {"kernel": scale * rng.normal(size=(2, 2, 1, 3)),
                       "bias": scale * rng.normal(size=3)},
            "BatchNorm_0": {"scale": scale * rng.normal(size=3)},
            "Dense_0": {"kernel": scale * rng.normal(size=(3, 2)),
                        "bias": scale * rng.normal(size=2)}}


START = tree(0, 0.1)
GRADIENTS = [tree(seed, 0.1) for seed in range(1, STEPS + 1)]


def trajectory(config: OptimizerConfig, gradients=GRADIENTS) -> list[dict]:
    """The parameters after each step."""
    optimizer = create_optimizer(config, create_schedule(config, len(gradients)))

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(np.float32, START)
    state, found = optimizer.init(params), []
    for gradient in gradients:
        params, state = step(params, state, jax.tree.map(np.float32, gradient))
        found.append(params)
    return found


def by_hand(formula, rates=None, gradients=GRADIENTS, **constants) -> list[dict]:
    """What `formula(parameter, gradient, slots, rate, step, **constants)` makes of each array."""
    leaves, shape = jax.tree.flatten(START)
    slots, found = [{} for _ in leaves], []
    for number, gradient in enumerate(gradients):
        rate = 1e-2 if rates is None else rates[number]
        leaves = [
            formula(parameter, g, slot, rate, number + 1, **constants)
            for parameter, g, slot in zip(leaves, jax.tree.leaves(gradient), slots, strict=True)]
        found.append(jax.tree.unflatten(shape, leaves))
    return found


def sgd(p, g, slots, rate, t, momentum=0.0):
    slots["v"] = momentum * slots.get("v", 0) - rate * g
    return p + slots["v"]


def adam(p, g, slots, rate, t, beta1=0.9, beta2=0.999, epsilon=1e-7):
    """Kingma and Ba's algorithm 1: epsilon beside the corrected root."""
    slots["m"] = beta1 * slots.get("m", 0) + (1 - beta1) * g
    slots["v"] = beta2 * slots.get("v", 0) + (1 - beta2) * g**2
    corrected = slots["m"] / (1 - beta1**t), slots["v"] / (1 - beta2**t)
    return p - rate * corrected[0] / (np.sqrt(corrected[1]) + epsilon)


def keras_adam(p, g, slots, rate, t, beta1=0.9, beta2=0.999, epsilon=1e-7):
    """Keras's: epsilon beside the root before its correction."""
    slots["m"] = beta1 * slots.get("m", 0) + (1 - beta1) * g
    slots["v"] = beta2 * slots.get("v", 0) + (1 - beta2) * g**2
    corrected_rate = rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)
    return p - corrected_rate * slots["m"] / (np.sqrt(slots["v"]) + epsilon)


def rmsprop(p, g, slots, rate, t, rho=0.9, epsilon=1e-7, momentum=0.0):
    slots["a"] = rho * slots.get("a", 0) + (1 - rho) * g**2
    change = rate * g / (np.sqrt(slots["a"]) + epsilon)
    slots["m"] = momentum * slots.get("m", 0) + change
    return p - slots["m"]


def adadelta(p, g, slots, rate, t, rho=0.9, epsilon=1e-7):
    slots["a"] = rho * slots.get("a", 0) + (1 - rho) * g**2
    change = g * np.sqrt(slots.get("d", 0) + epsilon) / np.sqrt(slots["a"] + epsilon)
    slots["d"] = rho * slots.get("d", 0) + (1 - rho) * change**2
    return p - rate * change


FORMULAS = {"sgd": sgd, "adam": adam, "rmsprop": rmsprop, "adadelta": adadelta}


def assert_same(found: list[dict], expected: list[dict]) -> None:
    """The changes from the first parameters, to 1 in 10,000 of the largest."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for p0, p, q in zip(*map(jax.tree.leaves, (START, ours, theirs)), strict=True):
            largest = np.abs(q - p0).max()
            np.testing.assert_allclose(p, q, rtol=5e-7, atol=1e-4 * largest)


# --- methods -------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "constants"), [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("adam", {"epsilon": 1e-7}),
    ("adam", {"epsilon": 0.05, "beta1": 0.8, "beta2": 0.95}),
    ("rmsprop", {"rho": 0.9, "epsilon": 1e-8}),
    ("rmsprop", {"rho": 0.8, "epsilon": 0.05, "momentum": 0.5}),
    ("adadelta", {"rho": 0.95, "epsilon": 1e-7}),
    ("adadelta", {"rho": 0.8, "epsilon": 0.05}),
])
def test_methods(name, constants):
    config = OptimizerConfig(name=name, learning_rate=1e-2, **constants)
    assert_same(trajectory(config), by_hand(FORMULAS[name], **constants))


def test_adam_is_keras_where_gradients_are_not_tiny():
    gradients = [jax.tree.map(lambda g: g + np.sign(g) * 0.1, gradient) for gradient in GRADIENTS]
    config = OptimizerConfig(name="adam", learning_rate=1e-2, epsilon=1e-7)
    assert_same(trajectory(config, gradients), by_hand(keras_adam, gradients=gradients))


def test_constants_of_other_methods_are_ignored():
    plain = trajectory(OptimizerConfig(name="adam", learning_rate=1e-2))
    other = trajectory(OptimizerConfig(name="adam", learning_rate=1e-2, rho=0.1, momentum=0.9))
    jax.tree.map(np.testing.assert_array_equal, plain, other)


@pytest.mark.parametrize(("experiment", "formula", "constants"), [
    ("chinese_cnn", adam, {"epsilon": 1e-7}),
    ("dense_cnn", adam, {"epsilon": 1e-7}),
    ("mse_cnn", sgd, {}),
    ("mnist_cnn", adadelta, {"rho": 0.95, "epsilon": 1e-7}),
    ("kaggle_cnn", rmsprop, {"rho": 0.9, "epsilon": 1e-8}),
])
def test_the_experiments_optimizers_are_the_originals(experiment, formula, constants):
    rates = {"chinese_cnn": 1e-3, "dense_cnn": 1e-3, "mse_cnn": 1e-2, "mnist_cnn": 1.0}
    steps = np.arange(STEPS)
    rate = rates.get(experiment, 1e-4 / (1 + 1e-5 * steps))
    config = load_experiment(experiment).optimizer
    np.testing.assert_allclose(  # the decay of so few steps, to more digits than the parameters'
        [create_schedule(config, 1000)(step) for step in steps],
        np.broadcast_to(rate, STEPS), rtol=3e-7)
    assert_same(trajectory(config), by_hand(
        formula, np.broadcast_to(rate, STEPS), **constants))


# --- schedules -----------------------------------------------------------------------------------

def rates_of(total: int, **fields) -> np.ndarray:
    schedule = create_schedule(OptimizerConfig(**fields), total)
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(total)))


def between(start: float, end: float, fraction: np.ndarray) -> np.ndarray:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + np.cos(np.pi * fraction)) / 2


def rates_by_hand(name: str, peak: float, total: int, decay_rate: float = 0.0) -> np.ndarray:
    steps = np.arange(total)
    if name == "onecycle":
        top = int(0.3 * total)
        return np.where(
            steps < top, between(peak / 25, peak, steps / top),
            between(peak, peak / 25e4, (steps - top) / (total - top)))
    return {"constant": np.full(total, peak), "cosine": between(peak, 0, steps / total),
            "inverse_time": peak / (1 + decay_rate * steps)}[name]


SCHEDULES = [("constant", {}), ("cosine", {}), ("onecycle", {}),
             ("inverse_time", {"decay_rate": 0.25}), ("inverse_time", {})]


@pytest.mark.parametrize(("name", "fields"), SCHEDULES)
def test_schedules(name, fields):
    found = rates_of(20, schedule=name, learning_rate=0.5, **fields)
    np.testing.assert_allclose(
        found, rates_by_hand(name, 0.5, 20, **fields), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "fields"), SCHEDULES)
def test_an_optimizer_follows_its_schedule(name, fields):
    config = OptimizerConfig(name="sgd", schedule=name, learning_rate=0.5, **fields)
    rates = rates_by_hand(name, 0.5, STEPS, **fields)
    assert_same(trajectory(config), by_hand(sgd, rates))


@pytest.mark.parametrize(("name", "fields"), [s for s in SCHEDULES if s[0] != "onecycle"])
def test_warm_up_rises_from_zero_before_the_schedule(name, fields):
    found = rates_of(20, schedule=name, learning_rate=0.5, warmup_steps=4, **fields)
    np.testing.assert_allclose(found[:4], [0, 0.125, 0.25, 0.375], rtol=1e-6)
    np.testing.assert_allclose(
        found[4:], rates_by_hand(name, 0.5, 16, **fields), rtol=1e-5, atol=1e-7)


def test_a_schedule_is_told_while_it_warms_up():
    config = OptimizerConfig(
        schedule="inverse_time", learning_rate=1.0, decay_rate=0.01, warmup_steps=200)
    assert float(create_schedule(config, 1000)(100)) == pytest.approx(0.5)


@pytest.mark.parametrize("total", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["constant", "cosine", "onecycle", "inverse_time"])
def test_the_shortest_runs_have_finite_positive_rates(name, total):
    found = rates_of(total, schedule=name, learning_rate=0.5)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert (found <= 0.5).all()


@pytest.mark.parametrize("warmup_steps", [10, 11])
def test_a_warm_up_as_long_as_the_run_is_refused(warmup_steps):
    with pytest.raises(FlaxdigitsError, match=r"optimizer\.warmup_steps must be below .* 10"):
        create_schedule(OptimizerConfig(warmup_steps=warmup_steps), 10)


# --- weight decay and clipping -------------------------------------------------------------------

@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_shrinks_kernels_alone_and_by_the_rate(name):
    config = OptimizerConfig(name=name, learning_rate=1e-2, weight_decay=0.3,
                             schedule="cosine")
    rates = rates_by_hand("cosine", 1e-2, STEPS)

    def decayed(p, g, slots, rate, t):
        decay = 0.3 if p.ndim > 1 else 0.0
        return FORMULAS[name](p, g, slots, rate, t) - rate * decay * p

    assert_same(trajectory(config), by_hand(decayed, rates))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_clipping_bounds_the_norm_of_the_whole_gradient_before_the_method(name):
    scales = np.linspace(0.2, 3, STEPS)
    gradients = [jax.tree.map(lambda g, scale=scale: scale * g, gradient)
                 for gradient, scale in zip(GRADIENTS, scales, strict=True)]
    norms = [np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
             for gradient in gradients]
    limit = float(np.median(norms))
    assert min(norms) < limit < max(norms)
    clipped = [jax.tree.map(lambda g, norm=norm: g * min(1, limit / norm), gradient)
               for gradient, norm in zip(gradients, norms, strict=True)]
    config = OptimizerConfig(name=name, learning_rate=1e-2, clip_norm=limit, epsilon=0.05)
    constants = {"epsilon": 0.05} if name == "adam" else {}
    assert_same(trajectory(config, gradients),
                by_hand(FORMULAS[name], gradients=clipped, **constants))
