"""Preprocessing against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from flaxdigits.data.preprocessing import preprocess

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 9, 7, 1), np.uint8)
IMAGES[:, :, 2] = 0  # columns of zeros
IMAGES[1] = 0
IMAGES[2, :, :] = 255  # whose squares overflow small integers


def keras_normalize(x, axis):
    """`keras.utils.normalize` as published, order 2."""
    l2 = np.atleast_1d(np.linalg.norm(x, 2, axis))
    l2[l2 == 0] = 1
    return x / np.expand_dims(l2, axis)


BY_HAND = {
    "unit": IMAGES / 255,
    "column_norm": keras_normalize(IMAGES[..., 0].astype(float), axis=1)[..., None],
    "raw": IMAGES.astype(float),
}


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
@pytest.mark.parametrize("name", BY_HAND)
def test_preprocessing(name, dtype):
    found = np.asarray(preprocess(jnp.asarray(IMAGES, dtype), name))
    assert found.dtype == np.float32
    assert found.shape == IMAGES.shape
    np.testing.assert_allclose(found, BY_HAND[name], rtol=1e-6)


def test_columns_get_norm_one_and_dark_ones_stay_dark():
    found = np.asarray(preprocess(jnp.asarray(IMAGES), "column_norm"))[..., 0]
    norms = np.sqrt((found.astype(float)**2).sum(1))
    is_dark = (IMAGES[..., 0] == 0).all(1)
    assert is_dark.any()
    np.testing.assert_allclose(norms, np.where(is_dark, 0, 1), rtol=1e-5)
