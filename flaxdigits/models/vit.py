"""Vision transformers: Dosovitskiy et al. 2021, "An image is worth 16x16 words: Transformers for
image recognition at scale", ICLR."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models.layers import Dense, Dropout, Training


class Vit(nn.Module):
    """Images, [batch, height, width, channels] float32, to logits, [batch, num_classes] float32.

    The image is divided into patches, each of which is projected to a token; position embeddings
    are learned. The logits are a dense layer of the mean of the tokens (appendix D.3 of the paper)
    instead of a class token.

    Attributes:
      num_classes: the number of logits.
      patch_size: the side of a patch in pixels.
      depth: the number of transformer blocks.
      heads: the number of attention heads.
      width: the number of features of a token.
      dropout: the dropout rate after the position embedding and in each block.

    Raises:
      FlaxdigitsError: from a call, if `patch_size` does not divide the size of the image.
    """

    num_classes: int
    patch_size: int = 4
    depth: int = 4
    heads: int = 4
    width: int = 64
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None = None) -> jax.Array:
        tokens = Dense(self.width)(split_into_patches(x, self.patch_size))
        positions = self.param(
            "positions", nn.initializers.normal(0.02), (tokens.shape[1], self.width))
        x = Dropout(self.dropout)(tokens + positions, training)
        for _ in range(self.depth):
            x = TransformerBlock(self.heads, self.dropout)(x, training)
        x = nn.LayerNorm(dtype=x.dtype)(x)
        return Dense(self.num_classes)(x.mean(1))


def split_into_patches(images: jax.Array, size: int) -> jax.Array:
    """Returns the pixels of every patch: [batch, patches, size * size * channels].

    Args:
      images: [batch, height, width, channels].
      size: the side of a patch in pixels.

    Raises:
      FlaxdigitsError: if `size` does not divide the height and the width.
    """
    batch, height, width, channels = images.shape
    if height % size or width % size:
        raise FlaxdigitsError(
            f"model.patch_size must divide the height and width of the images, {height}x{width}, "
            f"got {size}")
    patches = images.reshape(batch, height // size, size, width // size, size, channels)
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(
        batch, (height // size) * (width // size), size * size * channels)


class TransformerBlock(nn.Module):
    """Attention and a hidden layer of four times the width, each added to its input.

    Layer normalization comes first in both (pre-norm), as in the paper.

    Attributes:
      heads: the number of attention heads.
      dropout: the dropout rate after attention and after each dense layer.
    """

    heads: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, training: Training | None) -> jax.Array:
        width = x.shape[-1]
        y = Attention(self.heads)(nn.LayerNorm(dtype=x.dtype)(x))
        x = x + Dropout(self.dropout)(y, training)
        y = nn.gelu(Dense(4 * width)(nn.LayerNorm(dtype=x.dtype)(x)))
        y = Dense(width)(Dropout(self.dropout)(y, training))
        return x + Dropout(self.dropout)(y, training)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017): [batch, tokens, width] -> the same shape.

    Attributes:
      heads: the number of heads; it must divide the width.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        queries, keys, values = (
            Dense(width)(x).reshape(batch, tokens, self.heads, width // self.heads)
            .astype(jnp.float32) for _ in range(3))
        scores = jnp.einsum("bqhc,bkhc->bhqk", queries, keys) / math.sqrt(width // self.heads)
        mixed = jnp.einsum("bhqk,bkhc->bqhc", nn.softmax(scores), values)
        return Dense(width)(mixed.reshape(batch, tokens, width).astype(x.dtype))
