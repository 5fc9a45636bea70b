"""Optimizers and schedules over several steps against Keras's formulas typed in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.optimizers import SGD, Adam, AdamW, Lamb, NAdamW, Optimizer
from flaxdigits.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    OneCycle,
    Piecewise,
    Schedule,
)

pytest_plugins = ["tiny_run"]

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


def named(name: str, **fields) -> Optimizer:
    return Optimizer.find(name, "optimizer.name")(**fields)


def trajectory(config: Optimizer, gradients=GRADIENTS) -> list[dict]:
    """The parameters after each step."""
    optimizer = config.create(
        config.schedule.build(config.learning_rate, len(gradients), len(gradients)))

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


def reference(formula, rates=None, gradients=GRADIENTS, **constants) -> list[dict]:
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
    """Kingma and Ba's algorithm 1: epsilon added to the corrected root."""
    slots["m"] = beta1 * slots.get("m", 0) + (1 - beta1) * g
    slots["v"] = beta2 * slots.get("v", 0) + (1 - beta2) * g**2
    corrected = slots["m"] / (1 - beta1**t), slots["v"] / (1 - beta2**t)
    return p - rate * corrected[0] / (np.sqrt(corrected[1]) + epsilon)


def keras_adam(p, g, slots, rate, t, beta1=0.9, beta2=0.999, epsilon=1e-7):
    """Keras's: epsilon added to the root before its correction."""
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
    config = named(name, learning_rate=1e-2, **constants)
    assert_same(trajectory(config), reference(FORMULAS[name], **constants))


def test_adam_equals_that_of_keras_unless_gradients_are_tiny():
    gradients = [jax.tree.map(lambda g: g + np.sign(g) * 0.1, gradient) for gradient in GRADIENTS]
    config = Adam(learning_rate=1e-2, epsilon=1e-7)
    assert_same(trajectory(config, gradients), reference(keras_adam, gradients=gradients))


def adagrad(p, g, slots, rate, t, initial=0.1, epsilon=1e-7):
    slots["a"] = slots.get("a", initial) + g**2
    return p - rate * g / np.sqrt(slots["a"] + epsilon)


def lion(p, g, slots, rate, t, beta1=0.9, beta2=0.99):
    m = slots.get("m", 0)
    slots["m"] = beta2 * m + (1 - beta2) * g
    return p - rate * np.sign(beta1 * m + (1 - beta1) * g)


def nesterov(p, g, slots, rate, t, momentum=0.9):
    slots["v"] = momentum * slots.get("v", 0) + g
    return p - rate * (g + momentum * slots["v"])


@pytest.mark.parametrize(("name", "formula", "fields"), [
    ("adagrad", adagrad, {}), ("lion", lion, {}),
    ("sgd", nesterov, {"momentum": 0.9, "nesterov": True})])
def test_methods_of_the_papers(name, formula, fields):
    assert_same(trajectory(named(name, learning_rate=1e-2, **fields)), reference(formula))


def decayed_adam(p, g, slots, rate, t, decay=0.01):
    return adam(p, g, slots, rate, t) - rate * (decay * p if p.ndim > 1 else 0)


def test_adamw_is_adam_with_decay_of_kernels():
    assert_same(trajectory(AdamW(1e-2)), reference(decayed_adam))


def test_decay_reaches_biases_where_all_arrays_decay():
    def decayed(p, g, slots, rate, t):
        return sgd(p, g, slots, rate, t) - rate * 0.3 * p

    assert_same(trajectory(SGD(1e-2, weight_decay=0.3, decayed="all")), reference(decayed))


@pytest.mark.parametrize(("ours", "theirs"), [
    (NAdamW(1e-2, decayed="all"), optax.nadamw(1e-2, eps=1e-7, weight_decay=0.01)),
    (Lamb(1e-2, weight_decay=0.1, decayed="all"), optax.lamb(1e-2, eps=1e-7, weight_decay=0.1)),
    (named("muon", learning_rate=1e-2), optax.contrib.muon(1e-2)),
    (named("optax.adabelief", learning_rate=1e-2, b1=0.8), optax.adabelief(1e-2, b1=0.8)),
    (named("optax.contrib.prodigy", learning_rate=1e-2), optax.contrib.prodigy(1e-2)),
], ids=["nadamw", "lamb", "muon", "optax.adabelief", "optax.contrib.prodigy"])
def test_optimizers_equal_those_of_optax(ours, theirs):
    gradient, params = (jax.tree.map(np.float32, values) for values in (GRADIENTS[0], START))
    optimizer = ours.create(ours.schedule.build(1e-2, 10, 10))
    found, expected = (jax.jit(one.update)(gradient, one.init(params), params)[0]
                       for one in (optimizer, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9),
                 found, expected)


@pytest.mark.parametrize("name", sorted(Optimizer.registered))
def test_every_optimizer_lowers_a_quadratic_loss(name):
    config = named(name, learning_rate=0.02)
    optimizer = config.create(config.schedule.build(0.02, 50, 50))
    params = jax.tree.map(np.float32, tree(3))

    def loss(params):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(params))

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    start, state = loss(params), optimizer.init(params)
    for _ in range(50):
        params, state = step(params, state)
    assert loss(params) < start


@pytest.mark.parametrize(("name", "message"), [
    ("optax.lbfgs", "not an optimizer whose update needs only the gradient"),
    ("optax.no_such", "optax and optax.contrib have no such function"),
    ("optax.contrib.adamw", "optax and optax.contrib have no such function"),
    ("optax.dpsgd", "without a default, l2_norm_clip, noise_multiplier, seed, cannot be set"),
    ("adabelief", "an optimizer of optax with its prefix: optax.adabelief"),
    ("lio", "did you mean lion?"),
    (None, "optimizer.name must be one of adadelta"),
])
def test_an_unknown_optimizer_is_refused(name, message):
    with pytest.raises(FlaxdigitsError) as error:
        Optimizer.find(name, "optimizer.name")
    assert message in str(error.value) and "\n" not in str(error.value)


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
        [config.schedule.build(config.learning_rate, 1000, 100)(step) for step in steps],
        np.broadcast_to(rate, STEPS), rtol=3e-7)
    assert_same(trajectory(config), reference(
        formula, np.broadcast_to(rate, STEPS), **constants))


# --- schedules -----------------------------------------------------------------------------------

def schedule_named(name: str, **fields) -> Schedule:
    return Schedule.find(name, "optimizer.schedule.name")(**fields)


def rates_of(schedule: Schedule, total: int, steps_per_epoch: int = 5) -> np.ndarray:
    rate = schedule.build(0.5, total, steps_per_epoch)
    return np.asarray(jax.jit(jax.vmap(rate))(jnp.arange(total)))


def between(start: float, end: float, fraction: np.ndarray) -> np.ndarray:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + np.cos(np.pi * fraction)) / 2


def reference_rates(name: str, peak: float, total: int, decay_rate: float = 0.0) -> np.ndarray:
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
    found = rates_of(schedule_named(name, **fields), 20)
    np.testing.assert_allclose(
        found, reference_rates(name, 0.5, 20, **fields), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "fields"), SCHEDULES)
def test_an_optimizer_follows_its_schedule(name, fields):
    config = SGD(0.5, schedule_named(name, **fields))
    rates = reference_rates(name, 0.5, STEPS, **fields)
    assert_same(trajectory(config), reference(sgd, rates))


@pytest.mark.parametrize(("name", "fields"), [s for s in SCHEDULES if s[0] != "onecycle"])
def test_warm_up_rises_from_zero_before_the_schedule(name, fields):
    found = rates_of(schedule_named(name, warmup_steps=4, **fields), 20)
    np.testing.assert_allclose(found[:4], [0, 0.125, 0.25, 0.375], rtol=1e-6)
    np.testing.assert_allclose(
        found[4:], reference_rates(name, 0.5, 16, **fields), rtol=1e-5, atol=1e-7)


def test_inverse_time_is_finite_during_its_warm_up():
    schedule = InverseTime(decay_rate=0.01, warmup_steps=200)
    assert float(schedule.build(1.0, 1000, 10)(100)) == pytest.approx(0.5)


def test_linear_falls_to_its_end_factor():
    found = rates_of(schedule_named("linear", end_factor=0.2), 20)
    np.testing.assert_allclose(found, 0.5 * (1 - 0.8 * np.arange(20) / 20), rtol=1e-5)


def test_exponential_decays_every_epoch_or_at_the_configured_interval():
    np.testing.assert_allclose(
        rates_of(Exponential(factor=0.9), 20), 0.5 * 0.9 ** (np.arange(20) // 5), rtol=1e-5)
    smooth = Exponential(factor=0.9, every_steps=10, staircase=False)
    np.testing.assert_allclose(rates_of(smooth, 20), 0.5 * 0.9 ** (np.arange(20) / 10), rtol=1e-5)


def test_piecewise_changes_at_its_fractions_of_the_run():
    found = rates_of(Piecewise(boundaries=(0.5, 0.75), factors=(0.1, 0.5)), 20)
    np.testing.assert_allclose(found, np.repeat([0.5, 0.05, 0.025], [10, 5, 5]), rtol=1e-5)


def test_onecycle_takes_its_fields():
    found = rates_of(OneCycle(rise=0.5, start_divisor=10, end_divisor=2), 20)
    assert found[0] == pytest.approx(0.05) and found.argmax() == 10
    assert found[-1] == pytest.approx(between(0.5, 0.025, 0.9), rel=1e-5)


@pytest.mark.parametrize("total", [1, 2, 3, 4])
@pytest.mark.parametrize("name", sorted(Schedule.registered))
def test_the_shortest_runs_have_finite_positive_rates(name, total):
    found = rates_of(schedule_named(name), total)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert (found <= 0.5).all()


@pytest.mark.parametrize("warmup_steps", [10, 11])
def test_a_warm_up_as_long_as_the_run_is_refused(warmup_steps):
    with pytest.raises(FlaxdigitsError, match=r"schedule\.warmup_steps must be below .* 10"):
        Constant(warmup_steps=warmup_steps).build(0.1, 10, 5)


# --- weight decay and clipping -------------------------------------------------------------------

@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_shrinks_only_kernels_and_by_the_rate(name):
    config = named(name, learning_rate=1e-2, weight_decay=0.3, schedule=Cosine())
    rates = reference_rates("cosine", 1e-2, STEPS)

    def decayed(p, g, slots, rate, t):
        decay = 0.3 if p.ndim > 1 else 0.0
        return FORMULAS[name](p, g, slots, rate, t) - rate * decay * p

    assert_same(trajectory(config), reference(decayed, rates))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_clipping_bounds_the_global_norm_before_the_update_rule(name):
    scales = np.linspace(0.2, 3, STEPS)
    gradients = [jax.tree.map(lambda g, scale=scale: scale * g, gradient)
                 for gradient, scale in zip(GRADIENTS, scales, strict=True)]
    norms = [np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
             for gradient in gradients]
    limit = float(np.median(norms))
    assert min(norms) < limit < max(norms)
    clipped = [jax.tree.map(lambda g, norm=norm: g * min(1, limit / norm), gradient)
               for gradient, norm in zip(gradients, norms, strict=True)]
    constants = {"epsilon": 0.05} if name == "adam" else {}
    config = named(name, learning_rate=1e-2, clip_norm=limit, **constants)
    assert_same(trajectory(config, gradients),
                reference(FORMULAS[name], gradients=clipped, **constants))


@pytest.mark.parametrize(("name", "field"), [
    ("optax.muon", "ns_coeffs=1,2"), ("optax.adafactor", "decay_offset=99999999999")])
def test_fields_that_optax_refuses_are_refused_before_anything_is_written(
    name, field, train_tiny, tmp_path
):
    with pytest.raises(FlaxdigitsError, match=r"^optimizer: cannot update the params"):
        train_tiny(tmp_path / "run", f"optimizer={name}", f"optimizer.{field}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["optax.contrib.prodigy", "optax.contrib.dadapt_adamw"])
def test_an_optimizer_that_keeps_the_initial_params_is_resumed_bitwise(name, train_tiny, tmp_path):
    whole = train_tiny(tmp_path / "whole", f"optimizer={name}", "train.steps=4")
    train_tiny(tmp_path / "parts", f"optimizer={name}", "train.steps=4", "train.stop_after=2")
    parts = train_tiny(tmp_path / "parts", f"optimizer={name}", "train.steps=4")
    assert parts.step == whole.step == 4
    assert parts.result["train_loss"] == whole.result["train_loss"]
