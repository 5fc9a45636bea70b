"""Augmentations: random changes of the training images, different for every example and step.

An augmentation is a function of one image and a PRNG key, so that its result does not depend on the
number of devices or on the use of `jit`, `pmap` or `vmap`. Images are float32, [height, width,
channels], with values from 0 to 255; 0 is the background.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from etils import epy

from flaxdigits.components import Component, bounded, register

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp
    from jax.scipy import ndimage


@dataclasses.dataclass(frozen=True)
class Augmentation(Component, kind="augmentation"):
    """Base class of the augmentations."""

    def augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """Returns the augmented image.

        Args:
          image: [height, width, channels] float32, values 0 to 255.
          key: the PRNG key for this example and step.

        Returns:
          [height, width, channels] float32.
        """
        raise NotImplementedError


@register("affine")
@dataclasses.dataclass(frozen=True)
class Affine(Augmentation):
    """Zooms, shifts, shears and rotates, like the ImageDataGenerator of Keras.

    Interpolation is bilinear; outside the image the nearest border pixel is used. If all fields are
    0, the image is not changed.

    Attributes:
      rotation: the angle is uniform in [-rotation, rotation] degrees.
      zoom: the factor is uniform in [1 - zoom, 1 + zoom], with separate values for x and y.
      shift: the shift is uniform in [-shift, shift] times the size of the image along each axis.
      shear: the angle is uniform in [-shear, shear] degrees.
    """

    rotation: float = bounded(0.0, at_least=0, at_most=180)
    zoom: float = bounded(0.0, at_least=0, below=1)
    shift: float = bounded(0.0, at_least=0, at_most=1)
    shear: float = bounded(0.0, at_least=0, at_most=80)

    def augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        uniform = jax.random.uniform(key, (5,), minval=-1.0)
        angle = jnp.deg2rad(self.rotation) * uniform[0]
        zoom = 1 + self.zoom * uniform[1:3]
        size = jnp.array(image.shape[:2], jnp.float32)
        shift = self.shift * size * uniform[3:5]
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        matrix = jnp.array([[cosine, -sine], [sine, cosine]])
        # At the default precision of GPUs and TPUs the error would be hundredths of a pixel.
        highest = jax.lax.Precision.HIGHEST
        if self.shear:
            slant = jnp.tan(jnp.deg2rad(self.shear) * jax.random.uniform(
                jax.random.fold_in(key, 1), minval=-1.0))
            matrix = jnp.matmul(matrix, jnp.array([[1.0, 0.0], [slant, 1.0]]), precision=highest)
        center = (size - 1) / 2
        grid = _grid(image)
        # From output to input coordinates, as in Keras: zoom, shift, then rotation about the
        # center.
        offsets = (grid - center[:, None, None]) * zoom[:, None, None] + shift[:, None, None]
        rotated = jnp.einsum("ij,jhw->ihw", matrix, offsets, precision=highest)
        return _sample(image, rotated + center[:, None, None])


@register("elastic")
@dataclasses.dataclass(frozen=True)
class Elastic(Augmentation):
    """Displaces every pixel by a smooth random field (Simard et al. 2003).

    Attributes:
      strength: the standard deviation of the displacement, as a fraction of the size of the image.
      smoothness: the standard deviation of the Gaussian that smooths the field, as a fraction of
        the size of the image.
    """

    strength: float = bounded(0.03, at_least=0, at_most=1)
    smoothness: float = bounded(0.14, above=0, at_most=1)

    def augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        height, width = image.shape[:2]
        noise = jax.random.normal(key, (2, height, width))
        fields = []
        for size, values in zip((height, width), noise, strict=True):
            # The squared weights sum to 1, so that the standard deviation remains 1.
            rows, columns = (_gaussian(length, self.smoothness * length)
                             for length in (height, width))
            highest = jax.lax.Precision.HIGHEST
            smooth = jnp.matmul(jnp.matmul(rows, values, precision=highest), columns.T,
                                precision=highest)
            fields.append(self.strength * size * smooth)
        return _sample(image, _grid(image) + jnp.stack(fields))


@register("cutout")
@dataclasses.dataclass(frozen=True)
class Cutout(Augmentation):
    """Sets a square at a random position to 0 (DeVries and Taylor 2017).

    The center of the square is uniform over the image; parts of the square may be outside.

    Attributes:
      size: the side of the square as a fraction of the side of the image.
    """

    size: float = bounded(0.3, at_least=0, at_most=1)

    def augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        size = jnp.array(image.shape[:2], jnp.float32)
        center = jax.random.uniform(key, (2,)) * size
        distance = jnp.abs(_grid(image) + 0.5 - center[:, None, None])
        inside = (distance < self.size * size[:, None, None] / 2).all(0)
        return jnp.where(inside[..., None], 0.0, image)


@register("noise")
@dataclasses.dataclass(frozen=True)
class Noise(Augmentation):
    """Adds Gaussian noise to every pixel and clips the result to [0, 255].

    Attributes:
      deviation: the standard deviation of the noise, as a fraction of 255.
    """

    deviation: float = bounded(0.1, at_least=0, at_most=1)

    def augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        noise = 255 * self.deviation * jax.random.normal(key, image.shape)
        return jnp.clip(image + noise, 0, 255)


@register("blur")
@dataclasses.dataclass(frozen=True)
class Blur(Augmentation):
    """Blurs with a Gaussian of random width.

    Attributes:
      radius: the standard deviation of the Gaussian is uniform in [0, radius] pixels.
    """

    radius: float = bounded(1.0, at_least=0, at_most=32)

    def augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        radius = jnp.maximum(self.radius * jax.random.uniform(key), 1e-3)
        rows, columns = (_blur_matrix(length, radius) for length in image.shape[:2])
        return jnp.einsum("ij,jkc,lk->ilc", rows, image, columns,
                          precision=jax.lax.Precision.HIGHEST)


@register("brightness")
@dataclasses.dataclass(frozen=True)
class Brightness(Augmentation):
    """Changes brightness and contrast and clips the result to [0, 255].

    Attributes:
      brightness: the summand is uniform in [-brightness, brightness] times 255.
      contrast: differences from the mean of the image are multiplied by a factor that is uniform
        in [1 - contrast, 1 + contrast].
    """

    brightness: float = bounded(0.2, at_least=0, at_most=1)
    contrast: float = bounded(0.2, at_least=0, at_most=1)

    def augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        uniform = jax.random.uniform(key, (2,), minval=-1.0)
        mean = image.mean()
        image = (image - mean) * (1 + self.contrast * uniform[0]) + mean
        return jnp.clip(image + 255 * self.brightness * uniform[1], 0, 255)


@register("thickness")
@dataclasses.dataclass(frozen=True)
class Thickness(Augmentation):
    """Makes strokes thicker or thinner by a dilation or erosion of random size.

    Attributes:
      pixels: the change on each side of a stroke is uniform in [-pixels, pixels] pixels.
    """

    pixels: int = bounded(1, at_least=1, at_most=8)

    def augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        amount = self.pixels * jax.random.uniform(key, minval=-1.0)
        thick = thin = image
        for step in range(self.pixels):
            share = jnp.clip(jnp.abs(amount) - step, 0, 1)  # the last step may be a fraction of 1
            thick += share * (_extreme(thick, jax.lax.max, -jnp.inf) - thick)
            thin += share * (_extreme(thin, jax.lax.min, jnp.inf) - thin)
        return jnp.where(amount > 0, thick, thin)


def _grid(image: jax.Array) -> jax.Array:
    """Returns the coordinates of every pixel: [2, height, width] int32."""
    return jnp.stack(jnp.meshgrid(*map(jnp.arange, image.shape[:2]), indexing="ij"))


def _sample(image: jax.Array, coordinates: jax.Array) -> jax.Array:
    """Interpolates the image bilinearly at `coordinates`: [2, height, width] float32."""
    return jnp.stack([
        ndimage.map_coordinates(image[..., channel], list(coordinates), order=1, mode="nearest")
        for channel in range(image.shape[-1])], axis=-1)


def _gaussian(length: int, deviation: float) -> jax.Array:
    """Returns the matrix that smooths along an axis: [length, length], rows of unit norm."""
    positions = jnp.arange(length, dtype=jnp.float32)
    weights = jnp.exp(-jnp.square((positions[:, None] - positions) / deviation) / 2)
    return weights / jnp.linalg.norm(weights, axis=1, keepdims=True)


def _blur_matrix(length: int, deviation: jax.Array) -> jax.Array:
    """Returns the matrix that blurs along an axis: [length, length], rows that sum to 1."""
    positions = jnp.arange(length, dtype=jnp.float32)
    weights = jnp.exp(-jnp.square((positions[:, None] - positions) / deviation) / 2)
    return weights / weights.sum(1, keepdims=True)


def _extreme(image: jax.Array, reduce: Callable[..., Any], initial: float) -> jax.Array:
    """Returns the maximum or minimum of the 3x3 neighborhood of each pixel in each channel."""
    return jax.lax.reduce_window(image, initial, reduce, (3, 3, 1), (1, 1, 1), "SAME")
