"""Objectives on a linear network whose losses and gradients are typed in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxdigits.losses import CrossEntropy
from flaxdigits.objectives import (
    Batch,
    CutMix,
    FastAdversarial,
    Forward,
    Mixup,
    Objective,
    SharpnessAware,
    Supervised,
)

EXAMPLES, SIZE, CLASSES = 12, 8, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 1, (EXAMPLES, SIZE, SIZE, 1)).astype(np.float32)
TARGETS = np.eye(CLASSES, dtype=np.float32)[np.arange(EXAMPLES) % CLASSES]
PARAMS = {"kernel": RNG.normal(0, 0.1, (SIZE * SIZE, CLASSES)).astype(np.float32)}


def batch_of(places, seed=0) -> Batch:
    images, targets = jnp.asarray(IMAGES), jnp.asarray(TARGETS)
    return Batch(jnp.asarray(places), jnp.int32(EXAMPLES),
                 lambda at: (images[at], targets[at]), jax.random.key(seed))


FORWARD = Forward(
    logits=lambda params, images: (images.reshape(len(images), -1) @ params["kernel"], {}),
    losses=CrossEntropy().losses, mean=jnp.mean, all_reduce=lambda tree: tree)
WHOLE = np.arange(EXAMPLES, dtype=np.int32)


@functools.partial(jax.jit, static_argnames="objective")
def traced_inputs(objective: Objective, places, seed):
    return objective.inputs(batch_of(places, seed))


def inputs(objective: Objective, places=WHOLE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return tuple(map(np.asarray, traced_inputs(objective, places, seed)))


def gradient(objective: Objective, images=IMAGES, targets=TARGETS):
    return jax.jit(lambda params: objective.gradient(
        FORWARD, params, images, targets, batch_of(WHOLE)))(PARAMS)


def reference(kernel: np.ndarray, images: np.ndarray = IMAGES) -> tuple:
    """Loss, its gradient by the kernel and by the images."""
    flat = images.reshape(EXAMPLES, -1).astype(np.float64)
    logits = flat @ kernel
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    difference = (p - TARGETS) / EXAMPLES
    return (-(TARGETS * np.log(p)).sum(1).mean(), flat.T @ difference,
            (difference @ kernel.T).reshape(IMAGES.shape))


def test_supervised_is_the_mean_loss():
    (loss, (logits, _)), slope = gradient(Supervised())
    expected, by_kernel, _ = reference(PARAMS["kernel"])
    assert loss == pytest.approx(expected, rel=1e-5) and logits.shape == (EXAMPLES, CLASSES)
    np.testing.assert_allclose(slope["kernel"], by_kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(inputs(Supervised())[0], IMAGES)


@pytest.mark.parametrize("objective", [Mixup(alpha=0.8), CutMix()], ids=["mixup", "cutmix"])
def test_mixed_batches_do_not_depend_on_how_they_are_sharded(objective):
    images, targets = inputs(objective)
    halves = [inputs(objective, half) for half in np.split(WHOLE, 2)]
    for number, whole in enumerate((images, targets)):  # XLA may contract a product and a sum
        np.testing.assert_allclose(
            np.concatenate([half[number] for half in halves]), whole, rtol=0, atol=2e-7)
    assert (inputs(objective, seed=1)[0] != images).any()
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


def partner_of_all(mixed: np.ndarray, targets: np.ndarray) -> int:
    """By how many places the batch was rotated, from a mix of images and of what they are."""
    for distance in range(1, EXAMPLES):
        others = np.roll(IMAGES, -distance, 0)
        low, high = np.minimum(IMAGES, others), np.maximum(IMAGES, others)
        if ((mixed >= low - 1e-6) & (mixed <= high + 1e-6)).all():
            return distance
    raise AssertionError("no rotation explains the mixed images")


def test_mixup_mixes_images_and_targets_by_the_same_shares():
    images, targets = inputs(Mixup(alpha=0.8))
    distance = partner_of_all(images, targets)
    other_images, other_targets = np.roll(IMAGES, -distance, 0), np.roll(TARGETS, -distance, 0)
    share = ((images - other_images) * (IMAGES - other_images)).sum((1, 2, 3)) / np.square(
        IMAGES - other_images).sum((1, 2, 3))
    assert ((share >= 0) & (share <= 1)).all() and np.unique(share).size == EXAMPLES
    np.testing.assert_allclose(
        targets, share[:, None] * TARGETS + (1 - share[:, None]) * other_targets, atol=1e-5)


def test_mixup_draws_its_shares_from_beta():
    shares = np.concatenate([
        np.abs(inputs(Mixup(alpha=0.3), seed=seed)[1]).max(1) for seed in range(40)])
    expected = np.random.default_rng(0).beta(0.3, 0.3, 20_000)
    # Where partners have the same class the target stays whole: leave those out.
    shares = shares[shares < 1 - 1e-6]
    found, wanted = (np.mean(np.maximum(values, 1 - values) < 0.8)
                     for values in (shares, expected))
    assert found == pytest.approx(wanted, abs=0.1)


def test_cutmix_pastes_a_box_and_weighs_targets_by_its_area():
    images, targets = inputs(CutMix())
    distance = partner_of_all(images, targets)
    is_other = images != IMAGES
    np.testing.assert_array_equal(images[is_other], np.roll(IMAGES, -distance, 0)[is_other])
    for box in is_other[..., 0]:  # every box is whole rows times whole columns
        np.testing.assert_array_equal(box, np.outer(box.any(1), box.any(0)))
    share = 1 - is_other.mean((1, 2, 3))[:, None]
    np.testing.assert_allclose(
        targets, share * TARGETS + (1 - share) * np.roll(TARGETS, -distance, 0), atol=1e-6)
    assert 0.1 < share.mean() < 0.9


def test_sam_takes_the_gradient_uphill():
    (loss, _), slope = gradient(SharpnessAware(radius=0.5))
    here, direction, _ = reference(PARAMS["kernel"])
    _, expected, _ = reference(PARAMS["kernel"] + 0.5 * direction / np.linalg.norm(direction))
    assert loss == pytest.approx(here, rel=1e-5)
    np.testing.assert_allclose(slope["kernel"], expected, rtol=1e-3, atol=1e-6)
    assert np.abs(expected - direction).max() > 1e-3


def test_fast_adversarial_trains_on_worse_images_within_the_box():
    objective = FastAdversarial(epsilon=0.1, step=0.2)
    (loss, _), slope = gradient(objective)
    # A step of twice epsilon by the sign of a linear network's slope ends at the box's corner.
    _, _, by_image = reference(PARAMS["kernel"])
    worst = np.clip(IMAGES + 0.1 * np.sign(by_image), 0, 1)
    expected, by_kernel, _ = reference(PARAMS["kernel"], worst)
    assert loss == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(slope["kernel"], by_kernel, atol=1e-2)


def test_the_partner_in_a_batch_of_one_is_the_example_itself():
    batch = Batch(jnp.zeros(1, jnp.int32), jnp.int32(1),
                  lambda at: (jnp.asarray(IMAGES)[at], jnp.asarray(TARGETS)[at]),
                  jax.random.key(0))
    images, targets = Mixup().inputs(batch)
    np.testing.assert_allclose(images, IMAGES[:1], rtol=1e-6)
    np.testing.assert_allclose(targets, TARGETS[:1], rtol=1e-6)
