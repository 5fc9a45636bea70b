"""Random affine changes against SciPy's, with the matrices of Keras's ImageDataGenerator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from flaxdigits.config import Augmentation
from flaxdigits.data.augmentation import augment

DRAWS, SHAPE = 96, (12, 20)  # not square, so that axes cannot be mixed up
PLACES = np.arange(DRAWS, dtype=np.int32)
CONFIGS = {
    "rotation": Augmentation(rotation=25),
    "zoom": Augmentation(zoom=0.2),
    "shift": Augmentation(shift=0.1),
    "all": Augmentation(rotation=180, zoom=0.2, shift=0.1),
}


@functools.partial(jax.jit, static_argnames="config")
def _augment(images, places, rng, config):
    return augment(images, places, rng, config)


def augmented(images, config: Augmentation, places=PLACES, seed: int = 0) -> np.ndarray:
    """[draws, height, width]; `images` may be one for all draws."""
    images = np.broadcast_to(images, (len(places), *images.shape[-2:]))[..., None]
    return np.asarray(_augment(images, places, jax.random.key(seed), config))[..., 0]


def maps_of(config: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """Each draw's map from places in the output to places in the input: matrices and offsets.

    Read off what becomes of two images whose pixels are their own row, and their own column:
    bilinear interpolation of these is exact, away from the border.
    """
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).astype(np.float32)
    places = np.stack([*grid, np.ones(SHAPE)], -1).reshape(-1, 3)
    sources = [augmented(grid[axis], config).reshape(DRAWS, -1) for axis in range(2)]
    matrices, offsets = np.zeros((DRAWS, 2, 2)), np.zeros((DRAWS, 2))
    for axis, source in enumerate(sources):
        for draw, values in enumerate(source):
            inside = (values > 0.01) & (values < SHAPE[axis] - 1.01)
            assert inside.sum() > 20
            fit, *_ = np.linalg.lstsq(places[inside], values[inside], rcond=None)
            np.testing.assert_allclose(places[inside] @ fit, values[inside], atol=1e-4)
            matrices[draw, axis], offsets[draw, axis] = fit[:2], fit[2]
    return matrices, offsets


def keras_map(angle, shift, zoom) -> tuple[np.ndarray, np.ndarray]:
    """ImageDataGenerator's: rotation, shift and zoom matrices multiplied, about the centre.

    x is the row and y the column, as in `apply_affine_transform` with theta, tx, ty, zx, zy.
    """
    theta, (tx, ty), (zx, zy) = np.deg2rad(angle), shift, zoom
    rotation = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0],
                         [0, 0, 1]])
    translation = np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    scaling = np.diag([zx, zy, 1])
    o_x, o_y = SHAPE[0] / 2 - 0.5, SHAPE[1] / 2 - 0.5
    offset = np.array([[1, 0, o_x], [0, 1, o_y], [0, 0, 1]])
    reset = np.array([[1, 0, -o_x], [0, 1, -o_y], [0, 0, 1]])
    matrix = offset @ (rotation @ translation @ scaling) @ reset
    return matrix[:2, :2], matrix[:2, 2]


@pytest.fixture(scope="module", params=CONFIGS)
def drawn(request):
    """A config's name, its maps, and the angles, shifts and zooms that explain them."""
    matrices, offsets = maps_of(CONFIGS[request.param])
    angles = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])
    zooms = np.linalg.norm(matrices, axis=1)  # of the columns: zoom comes before rotation
    centre = (np.array(SHAPE) - 1) / 2
    turned = offsets - centre + matrices @ centre  # the shift after the rotation
    cosine, sine = np.cos(angles), np.sin(angles)
    shifts = np.stack([cosine * turned[:, 0] + sine * turned[:, 1],
                       -sine * turned[:, 0] + cosine * turned[:, 1]], 1)
    return request.param, (matrices, offsets), (np.rad2deg(angles), shifts, zooms)


def test_maps_are_keras_matrices(drawn):
    _, (matrices, offsets), parameters = drawn
    for matrix, offset, angle, shift, zoom in zip(matrices, offsets, *parameters, strict=True):
        expected_matrix, expected_offset = keras_map(angle, shift, zoom)
        np.testing.assert_allclose(matrix, expected_matrix, atol=1e-4)
        np.testing.assert_allclose(offset, expected_offset, atol=1e-3)


def test_draws_are_uniform_within_their_ranges(drawn):
    name, _, (angles, shifts, zooms) = drawn
    config = CONFIGS[name]
    limits = {
        "angle": (angles, config.rotation), "row zoom": (zooms[:, 0] - 1, config.zoom),
        "column zoom": (zooms[:, 1] - 1, config.zoom),
        "row shift": (shifts[:, 0], config.shift * SHAPE[0]),
        "column shift": (shifts[:, 1], config.shift * SHAPE[1])}
    varied = []
    for what, (values, limit) in limits.items():
        assert np.abs(values).max() <= limit + 2e-3, what
        if limit:
            assert values.max() > 0.9 * limit, what
            assert values.min() < -0.9 * limit, what
            assert abs(values.mean()) < 4 * limit / np.sqrt(3 * DRAWS), what
            varied.append(values)
    together = np.corrcoef(varied) - np.eye(len(varied)) if len(varied) > 1 else np.zeros(1)
    assert np.abs(together).max() < 0.4  # each is drawn for itself


def test_images_are_scipys(drawn):
    name, maps, _ = drawn
    images = np.random.default_rng(0).integers(0, 256, (DRAWS, *SHAPE)).astype(np.float32)
    found = augmented(images, CONFIGS[name])
    expected = [
        ndimage.affine_transform(image.astype(float), matrix, offset, order=1, mode="nearest")
        for image, matrix, offset in zip(images, *maps, strict=True)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.1)  # of 255
    assert np.abs(found - images).mean() > 10  # something was done


def test_a_draw_depends_on_key_and_place_alone():
    config, images = CONFIGS["all"], np.random.default_rng(0).uniform(0, 255, (DRAWS, *SHAPE))
    images = images.astype(np.float32)
    found = augmented(images, config)
    order = np.random.default_rng(1).permutation(DRAWS).astype(np.int32)
    np.testing.assert_array_equal(augmented(images[order], config, order), found[order])
    np.testing.assert_array_equal(augmented(images, config), found)
    one_image = augmented(images[0], config)
    assert len({image.tobytes() for image in one_image}) == DRAWS
    assert (augmented(images, config, seed=1) != found).any((1, 2)).all()


def test_no_change_is_the_identity():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    np.testing.assert_array_equal(
        augmented(images, Augmentation(), np.arange(3, dtype=np.int32)), images)


def test_images_may_be_of_any_dtype_and_keep_their_shape():
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE, 1))
    found = [jax.eval_shape(functools.partial(augment, config=CONFIGS["all"]),
                            jnp.asarray(images, dtype), jnp.arange(3), jax.random.key(0))
             for dtype in (jnp.uint8, jnp.int32, jnp.float32)]
    assert {(image.shape, image.dtype.name) for image in found} == {((3, *SHAPE, 1), "float32")}
