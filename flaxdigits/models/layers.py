"""The layers of the models: layers of Flax linen with faster implementations.

Parameters, names and results are those of `nn.Conv`, `nn.max_pool`, `nn.avg_pool` and `nn.Dense`.
Kernels are initialized by Glorot uniform and biases by zeros, as in Keras (Glorot and Bengio 2010;
the default of linen is LeCun normal). A layer whose training differs from its evaluation has an
argument `training`: an object of class `Training`, or None in evaluation.
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
    """Describes a training batch, so that layers give the same results on any number of devices.

    Attributes:
      positions: [batch] int32, the position of each example in the global batch.
      mask: [batch] bool, False for padding.
      axis_name: the name of the axis of `pmap` over which the batch is sharded; None under `jit`.
    """

    positions: jax.Array
    mask: jax.Array
    axis_name: str | None = flax.struct.field(pytree_node=False, default=None)

    def sum(self, values: jax.Array) -> jax.Array:
        """Returns the sum over all devices of an array that each device computed for its shard."""
        return lax.psum(values, self.axis_name) if self.axis_name else values


class Conv(nn.Module):
    """A convolution with stride 1 and bias.

    The input is [batch, height, width, in], and the output [batch, output height, output width,
    features].

    Attributes:
      features: the number of output channels.
      kernel_size: the height and the width of the kernel.
      padding: SAME or VALID.
    """

    features: int
    kernel_size: tuple[int, int]
    padding: str = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _check_size(self, x, (1, 1) if self.padding == "SAME" else self.kernel_size)
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", glorot_uniform, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return _add_bias(convolve(x, kernel, self.padding), bias)


def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds a bias in float32, so that the gradient of a bfloat16 bias is summed in float32, too."""
    return (x.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


def _check_size(layer: nn.Module, x: jax.Array, least: tuple[int, int]) -> None:
    """Raises FlaxdigitsError if the input of a layer has fewer pixels than `least`."""
    height, width = x.shape[1:3]
    if height < least[0] or width < least[1]:
        raise FlaxdigitsError(
            f"{'/'.join(layer.path)} needs an input of at least {least[0]}x{least[1]} pixels, got "
            f"{height}x{width}: use larger images (for an image_folder: data.image_size) or "
            "another network")


class Dense(nn.Module):
    """A dense layer with bias, applied to the last axis: [..., in] -> [..., features].

    Attributes:
      features: the size of the last axis of the output.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", glorot_uniform, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        product = multiply(x.reshape(-1, x.shape[-1]), kernel)
        return _add_bias(product.reshape(*x.shape[:-1], self.features), bias)


class Flatten(nn.Module):
    """Flattens all axes except the first: [batch, ...] -> [batch, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1)


class MaxPool(nn.Module):
    """2x2 max pooling with stride 2.

    [batch, height, width, channels] -> [batch, height // 2, width // 2, channels].
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _check_size(self, x, (2, 2))
        return max_pool(x)


class AvgPool(nn.Module):
    """2x2 average pooling with stride 2.

    [batch, height, width, channels] -> [batch, height // 2, width // 2, channels].
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _check_size(self, x, (2, 2))
        batch, height, width, channels = x.shape
        x = x[:, :height // 2 * 2, :width // 2 * 2]
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def max_pool(x: jax.Array) -> jax.Array:
    """Returns the 2x2 max pooling with stride 2.

    As in `nn.max_pool`, the first of equal values gets the gradient. The forward pass records which
    of the four values is the largest, and the backward pass assigns the gradient to it without a
    scatter; the gradient of `reduce_window` is several times slower on CPUs. (A comparison of the
    values in the backward pass would lose gradients where XLA recomputes the values with other
    rounding.)

    Args:
      x: [batch, height, width, channels], of any float dtype.

    Returns:
      [batch, height // 2, width // 2, channels], of the same dtype.
    """
    return _max_pool(x.shape[1:3], x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_pool(size: tuple[int, int], x: jax.Array) -> jax.Array:
    return _pool_and_choose(x)[0]


def _pool_and_choose(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the maxima of the 2x2 windows, and their positions in the windows, 0 to 3, as uint8.

    An odd last row or column is omitted.
    """
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
    parts = [jnp.where(choice == position, gradient, 0) for position in range(4)]
    rows = [jnp.stack(parts[:2], axis=3), jnp.stack(parts[2:], axis=3)]
    height, width = size
    unpooled = jnp.stack(rows, axis=2).reshape(
        gradient.shape[0], height // 2 * 2, width // 2 * 2, gradient.shape[-1])
    return (jnp.pad(unpooled, ((0, 0), (0, height % 2), (0, width % 2), (0, 0))),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


class Dropout(nn.Module):
    """In training, sets each value to 0 with probability `rate` and divides the others by 1 - rate.

    The mask of an example depends only on the PRNG key `dropout` of the step and on the position of
    the example in the global batch.

    Attributes:
      rate: the fraction of the values that are set to 0, at least 0 and less than 1.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None) -> jax.Array:
        if training is None or self.rate == 0:
            return x
        key = self.make_rng("dropout")
        size = math.prod(x.shape[1:])

        def draw(position: jax.Array) -> jax.Array:
            # Each 32-bit number is used as two 16-bit ones: half the cost, rates exact to 2**-16.
            bits = jax.random.bits(jax.random.fold_in(key, position), (-(-size // 2),), jnp.uint32)
            return lax.bitcast_convert_type(bits, jnp.uint16).reshape(-1)[:size]

        # The barrier prevents XLA from recomputing the mask in every operation that uses it.
        threshold = min(round(self.rate * 2**16), 2**16 - 1)
        keep = lax.optimization_barrier(jax.vmap(draw)(training.positions) >= threshold)
        return jnp.where(keep.reshape(x.shape), x / (1 - self.rate), 0)


class BatchNorm(nn.Module):
    """Batch normalization over the unmasked examples of the global batch.

    The running averages for evaluation are in the collection `batch_stats` (Ioffe and Szegedy
    2015). Moments are computed in float32 for inputs of any dtype. The constants are the defaults
    of PyTorch, since images with few and dim strokes have small variances: in the first layer of
    `chinese_cnn` the variance is 2e-4, which is small against Keras's epsilon of 1e-3. With Keras's
    momentum of 0.99, the initial running variance of 1 would also dominate for a thousand steps.
    (After one epoch the validation accuracy is 39.80 % with the constants of Keras and 90.53 % with
    these, data.split=writers, seed 1.)

    Attributes:
      momentum: the weight of the old value in an update of a running average.
      epsilon: the constant that is added to the variance.
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
    """Returns the mean and the variance of each feature over the unmasked examples of all devices.
    """
    axes = tuple(range(x.ndim - 1))
    mask = training.mask.reshape(-1, *[1] * (x.ndim - 1))
    count = training.sum(training.mask.sum()) * math.prod(x.shape[1:-1])
    mean = training.sum(jnp.where(mask, x, 0).sum(axes)) / count
    variance = training.sum(jnp.where(mask, jnp.square(x - mean), 0).sum(axes)) / count
    return mean, variance
