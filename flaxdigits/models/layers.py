"""The layers of the models: those of Flax linen, by a path that is fast on the device.

Parameters, names and results are those of `nn.Conv`, `nn.max_pool`, `nn.avg_pool` and `nn.Dense`;
kernels are initialized Glorot-uniform and biases with zeros, as in Keras (Glorot and Bengio 2010;
linen's own default is LeCun-normal). A layer that behaves differently in training takes `Training`
there, and None in evaluation.
"""

import functools
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models.convolution import convolve
from flaxdigits.models.products import multiply

glorot_uniform = nn.initializers.glorot_uniform()


@flax.struct.dataclass
class Training:
    """The description of a training batch with which results do not depend on the devices.

    Attributes:
      positions: [batch] int32, each example's position in the global batch.
      mask: [batch] bool, False for the padding of a smaller batch.
      axis_name: of `pmap`, over which the batch is sharded; None under `jit`.
    """

    positions: jax.Array
    mask: jax.Array
    axis_name: str | None = flax.struct.field(pytree_node=False, default=None)

    def sum(self, values: jax.Array) -> jax.Array:
        """Returns the sum over the global batch of per-device sums."""
        return lax.psum(values, self.axis_name) if self.axis_name else values


class Conv(nn.Module):
    """A convolution of stride 1: [batch, h, w, in] -> [batch, h', w', features]."""

    features: int
    kernel_size: tuple[int, int]
    padding: str = "VALID"  # or "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _check_size(self, x, (1, 1) if self.padding == "SAME" else self.kernel_size)
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", glorot_uniform, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return _add_bias(convolve(x, kernel, self.padding), bias)


def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds in float32, so that the gradient of a bfloat16 bias is summed in float32 too."""
    return (x.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


def _check_size(layer: nn.Module, x: jax.Array, least: tuple[int, int]) -> None:
    """Raises FlaxdigitsError if images, or what is left of them, are too small for a layer."""
    height, width = x.shape[1:3]
    if height < least[0] or width < least[1]:
        raise FlaxdigitsError(
            f"{'/'.join(layer.path)} needs at least {least[0]}x{least[1]} pixels and is given "
            f"{height}x{width}: use larger images (of an image_folder: data.image_size) or "
            "another network")


class Dense(nn.Module):
    """A matrix and a bias: [..., in] -> [..., features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", glorot_uniform, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        product = multiply(x.reshape(-1, x.shape[-1]), kernel)
        return _add_bias(product.reshape(*x.shape[:-1], self.features), bias)


class Flatten(nn.Module):
    """[batch, ...] -> [batch, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1)


class MaxPool(nn.Module):
    """The largest of every 2x2 window, stride 2: [batch, h, w, c] -> [batch, h//2, w//2, c]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _check_size(self, x, (2, 2))
        return max_pool(x)


class AvgPool(nn.Module):
    """The mean of every 2x2 window, stride 2: [batch, h, w, c] -> [batch, h//2, w//2, c]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _check_size(self, x, (2, 2))
        batch, height, width, channels = x.shape
        x = x[:, :height // 2 * 2, :width // 2 * 2]
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def max_pool(x: jax.Array) -> jax.Array:
    """Returns the 2x2 maxima, stride 2; as in `nn.max_pool`, the first of equals has the gradient.

    The forward pass records which of the four values is the largest, and the backward pass puts the
    gradient there without a scatter: the gradient of `reduce_window` is several times slower on
    CPUs. (Comparing values in the backward pass instead would lose gradient wherever XLA recomputes
    them with other rounding.)
    """
    return _max_pool(x.shape[1:3], x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_pool(size: tuple[int, int], x: jax.Array) -> jax.Array:
    return _pool_and_choose(x)[0]


def _pool_and_choose(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the maxima and their places in the windows (uint8); odd last lines are left out."""
    batch, height, width, channels = x.shape
    x = x[:, :height // 2 * 2, :width // 2 * 2]
    windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    (a, b), (c, d) = [[windows[:, :, i, :, j] for j in range(2)] for i in range(2)]
    upper, lower = jnp.maximum(a, b), jnp.maximum(c, d)
    choice = jnp.where(lower > upper, jnp.where(d > c, 3, 2), jnp.where(b > a, 1, 0))
    return jnp.maximum(upper, lower), choice.astype(jnp.uint8)


def _max_pool_forward(size: tuple[int, int], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _pool_and_choose(x)


def _max_pool_backward(
    size: tuple[int, int], choice: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
    parts = [jnp.where(choice == place, gradient, 0) for place in range(4)]
    rows = [jnp.stack(parts[:2], axis=3), jnp.stack(parts[2:], axis=3)]
    height, width = size
    spread = jnp.stack(rows, axis=2).reshape(
        gradient.shape[0], height // 2 * 2, width // 2 * 2, gradient.shape[-1])
    return (jnp.pad(spread, ((0, 0), (0, height % 2), (0, width % 2), (0, 0))),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


class Dropout(nn.Module):
    """Zeroes each value with probability `rate` in training and scales the others up.

    An example's mask depends only on the step's `dropout` key and its position in the global batch.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None) -> jax.Array:
        if training is None or self.rate == 0:
            return x
        key = self.make_rng("dropout")
        size = math.prod(x.shape[1:])

        def draw(place: jax.Array) -> jax.Array:
            # Two 16-bit draws from each 32-bit one: half the cost, rates exact to 1 in 65,536.
            bits = jax.random.bits(jax.random.fold_in(key, place), (-(-size // 2),), jnp.uint32)
            return lax.bitcast_convert_type(bits, jnp.uint16).reshape(-1)[:size]

        # The barrier keeps XLA from drawing again in every operation that uses the mask.
        threshold = min(round(self.rate * 2**16), 2**16 - 1)
        keep = lax.optimization_barrier(jax.vmap(draw)(training.positions) >= threshold)
        return jnp.where(keep.reshape(x.shape), x / (1 - self.rate), 0)


class BatchNorm(nn.Module):
    """Batch normalisation over the unmasked examples of the global batch.

    Averages for evaluation are kept in the collection `batch_stats`; the method is Ioffe and
    Szegedy's (2015). Moments are float32, whatever the values are. The constants are PyTorch's
    defaults: strokes are few and dim, and in the first layer of `chinese_cnn` the variance is 2e-4,
    which drowns in Keras's epsilon of 1e-3, and for a thousand steps in the 1 from which its
    momentum of 0.99 starts (after one epoch 39.80 % of the validation images and with these
    90.53 %, writers held out, seed 1).
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None) -> jax.Array:
        features, dtype, x = (x.shape[-1],), x.dtype, x.astype(jnp.float32)
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        variance = self.variable("batch_stats", "variance", jnp.ones, features)
        if training is None:
            batch_mean, batch_variance = mean.value, variance.value
        else:
            batch_mean, batch_variance = _moments(x, training)
            if not self.is_initializing():
                for average, value in ((mean, batch_mean), (variance, batch_variance)):
                    average.value += (1 - self.momentum) * (value - average.value)
        x = (x - batch_mean) * (scale * lax.rsqrt(batch_variance + self.epsilon)) + bias
        return x.astype(dtype)


def _moments(x: jax.Array, training: Training) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance per feature over the unmasked examples of all devices."""
    axes = tuple(range(x.ndim - 1))
    mask = training.mask.reshape(-1, *[1] * (x.ndim - 1))
    count = training.sum(training.mask.sum()) * math.prod(x.shape[1:-1])
    mean = training.sum(jnp.where(mask, x, 0).sum(axes)) / count
    variance = training.sum(jnp.where(mask, jnp.square(x - mean), 0).sum(axes)) / count
    return mean, variance
