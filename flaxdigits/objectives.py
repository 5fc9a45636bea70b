"""Objectives: the functions that a train step minimizes, given the forward pass and the batch.

`supervised` is the mean loss of the batch. The others change the images, the targets, the loss or
the gradient, without changes to the training loop: `--set train.objective=mixup`. Their results do
not depend on the number of devices: random values depend only on the step and on the position of
each example in the global batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from etils import epy

from flaxdigits.components import Component, bounded, register
from flaxdigits.errors import FlaxdigitsError

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Batch:
    """A training batch, or the part of it on one device.

    Attributes:
      positions: [batch] int32, the position of each example in the global batch.
      count: [] int32, the number of examples in the global batch, without padding.
      load: a function of positions in the global batch that returns their images ([batch, height,
        width, channels] float32, augmented and preprocessed) and targets ([batch, classes]
        float32).
      key: the PRNG key of the objective for this step.
    """

    positions: jax.Array
    count: jax.Array
    load: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    key: jax.Array

    def keys(self) -> jax.Array:
        """Returns a PRNG key for each example: [batch] keys."""
        return jax.vmap(jax.random.fold_in, (None, 0))(self.key, self.positions)

    def load_pairs(self) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        """Returns the images and targets of the examples, and those of their partners."""
        return self.load(self.positions), self.load(self.partners())

    def partners(self) -> jax.Array:
        """Returns the position of a random partner for each example: [batch] int32.

        The partners are the batch rotated by a random offset, so that every example is the partner
        of exactly one other. A batch of one example is paired with itself.
        """
        distance = jax.random.randint(
            jax.random.fold_in(self.key, 2**32 - 1), (), 1, jnp.maximum(self.count, 2))
        return (self.positions + distance) % self.count


@dataclasses.dataclass(frozen=True)
class Forward:
    """The forward pass of a train step.

    Attributes:
      logits: the function `(params, images) -> (logits, model_state)`. Every call in a step uses
        the same dropout mask, so that all passes evaluate the same function of the parameters and
        images.
      losses: the function `(logits, targets) -> losses`, [batch] float32.
      mean: the function `values -> mean`: the mean of [batch] values over the examples of the
        global batch, without padding. On several devices it returns the contribution of this
        device, which is to be summed by `all_reduce`.
      all_reduce: the function that sums a pytree of such contributions over the devices.
      teacher_logits: the function `images -> logits` of the network of the objective's `teacher`,
        or None.
    """

    logits: Callable[[Any, jax.Array], tuple[jax.Array, Any]]
    losses: Callable[[jax.Array, jax.Array], jax.Array]
    mean: Callable[[jax.Array], jax.Array]
    all_reduce: Callable[[Any], Any]
    teacher_logits: Callable[[jax.Array], jax.Array] | None = None

    def loss(
        self, params: Any, images: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        """Returns the mean loss of a batch, and the tuple of the logits and the model state."""
        logits, model_state = self.logits(params, images)
        return self.mean(self.losses(logits, targets)), (logits, model_state)


# What `gradient` returns: ((loss, (logits, model_state)), gradient).
Result = tuple[tuple[Any, tuple[Any, Any]], Any]


@dataclasses.dataclass(frozen=True)
class Objective(Component, kind="objective"):
    """Base class of the objectives; a subclass overrides one of the three methods."""

    def inputs(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns the images and the targets of the train step."""
        return batch.load(batch.positions)

    def loss(
        self, forward: Forward, params: Any, images: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        """Returns the loss to be minimized, and the tuple of the logits and the model state."""
        return forward.loss(params, images, targets)

    def gradient(
        self, forward: Forward, params: Any, images: jax.Array, targets: jax.Array, batch: Batch
    ) -> Result:
        """Returns `((loss, (logits, model_state)), gradient)`.

        The gradient is that of the loss with respect to `params`. On several devices loss and
        gradient are the contributions of this device, which the train step sums.

        Args:
          forward: the forward pass.
          params: the parameters of the model, without those that `train.freeze` names.
          images: the images that `inputs` returned.
          targets: the targets that `inputs` returned.
          batch: the batch that was passed to `inputs`.
        """
        return jax.value_and_grad(
            lambda params: self.loss(forward, params, images, targets), has_aux=True)(params)


@register("supervised")
@dataclasses.dataclass(frozen=True)
class Supervised(Objective):
    """The mean loss of the batch."""


@register("mixup")
@dataclasses.dataclass(frozen=True)
class Mixup(Objective):
    """Mixes the images and targets of every example with those of another (Zhang et al. 2018).

    Attributes:
      alpha: the parameter of the Beta(alpha, alpha) distribution of the mixing weights.
    """

    alpha: float = bounded(0.2, above=0)

    def inputs(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        (images, targets), (other_images, other_targets) = batch.load_pairs()
        share = _beta(batch.keys(), self.alpha)
        return (_mix(images, other_images, share[:, None, None, None]),
                _mix(targets, other_targets, share[:, None]))


@register("cutmix")
@dataclasses.dataclass(frozen=True)
class CutMix(Objective):
    """Pastes a box of another image into every image (Yun et al. 2019).

    The targets are mixed in proportion to the areas.

    Attributes:
      alpha: the parameter of the Beta(alpha, alpha) distribution of the area of the box.
    """

    alpha: float = bounded(1.0, above=0)

    def inputs(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        (images, targets), (other_images, other_targets) = batch.load_pairs()
        keys = batch.keys()
        # The side of the box as a fraction of the side of the image.
        side = jnp.sqrt(1 - _beta(keys, self.alpha))[:, None]
        size = jnp.array(images.shape[1:3], jnp.float32)
        center = jax.vmap(lambda key: jax.random.uniform(
            jax.random.fold_in(key, 1), (2,)))(keys) * size
        rows, columns = (
            jnp.abs(jnp.arange(length) + 0.5 - center[:, axis, None]) < side * length / 2
            for axis, length in enumerate(images.shape[1:3]))
        is_other = rows[:, :, None] & columns[:, None, :]
        share = 1 - is_other.mean((1, 2))
        return (jnp.where(is_other[..., None], other_images, images),
                _mix(targets, other_targets, share[:, None]))


@register("sam")
@dataclasses.dataclass(frozen=True)
class SharpnessAware(Objective):
    """Sharpness-aware minimization (Foret et al. 2021).

    The gradient is computed at the point of the highest loss within a radius of the parameters.
    A step takes two forward and backward passes, with the same dropout mask, as in the code of the
    authors (`train_step` in google-research/sam).

    Attributes:
      radius: the Euclidean norm over all parameters of the distance to that point (rho in the
        paper).
    """

    radius: float = bounded(0.05, above=0)

    def gradient(
        self, forward: Forward, params: Any, images: jax.Array, targets: jax.Array, batch: Batch
    ) -> Result:
        at_params, slope_at_params = super().gradient(forward, params, images, targets, batch)
        direction = forward.all_reduce(slope_at_params)
        norm = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(direction)))
        scale = self.radius / jnp.maximum(norm, 1e-12)
        higher = jax.tree.map(lambda param, slope: param + scale * slope, params, direction)
        _, gradient = super().gradient(forward, higher, images, targets, batch)
        return at_params, gradient


@register("fast_adversarial")
@dataclasses.dataclass(frozen=True)
class FastAdversarial(Objective):
    """Trains on adversarially perturbed images (Wong et al. 2020).

    The perturbation starts at a random value within `epsilon` for each pixel and is changed by one
    signed-gradient step of size `step`; it is clipped to `epsilon`, and the image to [0, 1]. A step
    takes two forward and backward passes. Needs `data.preprocessing=unit`.

    Attributes:
      epsilon: the largest change of a pixel, for pixel values from 0 to 1.
      step: the size of the gradient step, for pixel values from 0 to 1.
    """

    epsilon: float = bounded(0.1, above=0, at_most=1)
    step: float = bounded(0.125, above=0, at_most=2)

    def gradient(
        self, forward: Forward, params: Any, images: jax.Array, targets: jax.Array, batch: Batch
    ) -> Result:
        def loss(perturbed: jax.Array) -> jax.Array:
            return forward.loss(params, perturbed, targets)[0]

        start = jax.vmap(lambda key, image: jax.random.uniform(
            key, image.shape, minval=-self.epsilon, maxval=self.epsilon))(batch.keys(), images)
        slope = jax.grad(loss)(jnp.clip(images + start, 0, 1))
        change = jnp.clip(start + self.step * jnp.sign(slope), -self.epsilon, self.epsilon)
        perturbed = jax.lax.stop_gradient(jnp.clip(images + change, 0, 1))
        return super().gradient(forward, params, perturbed, targets, batch)


@register("distillation")
@dataclasses.dataclass(frozen=True)
class Distillation(Objective):
    """Knowledge distillation: trains on the logits of a trained network (Hinton et al. 2015).

    The loss is `(1 - weight) * train.loss + weight * temperature^2 * KL(teacher || student)`, where
    the distributions are the softmax of the logits divided by the temperature. With the factor
    `temperature^2` the magnitude of the gradient hardly depends on the temperature. The teacher is
    applied to the same augmented images in evaluation mode. Its weights are constant and are not
    part of the train state or of a checkpoint; its run folder is therefore needed until training is
    complete.

    Attributes:
      teacher: the run folder of the teacher, for its last checkpoint; for another checkpoint
        `runs/x@best` or `runs/x@5000`.
      temperature: the divisor of the logits; a higher temperature gives softer distributions.
      weight: the weight of the term of the teacher in the loss.
    """

    teacher: str | None = None
    temperature: float = bounded(4.0, above=0)
    weight: float = bounded(0.9, at_least=0, at_most=1)

    def check(self, path: str) -> None:
        if not self.teacher:
            raise FlaxdigitsError(
                f"{path}.teacher must name the run folder of the teacher, such as runs/x or "
                f"runs/x@best, got {self.teacher!r}")

    def loss(
        self, forward: Forward, params: Any, images: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, model_state = forward.logits(params, images)
        teacher, student = (jax.nn.log_softmax(values / self.temperature)
                            for values in (forward.teacher_logits(images), logits))
        divergence = (jnp.exp(teacher) * (teacher - student)).sum(-1)
        losses = ((1 - self.weight) * forward.losses(logits, targets)
                  + self.weight * self.temperature**2 * divergence)
        return forward.mean(losses), (logits, model_state)


def _beta(keys: jax.Array, alpha: float) -> jax.Array:
    """Samples from Beta(alpha, alpha) for each key: [keys] float32."""
    return jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)


def _mix(values: jax.Array, others: jax.Array, share: jax.Array) -> jax.Array:
    return share * values + (1 - share) * others
