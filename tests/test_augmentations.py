"""Random affine changes against SciPy's, with the matrices of Keras's ImageDataGenerator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from flaxdigits.augmentations import (
    Affine,
    Augmentation,
    Blur,
    Brightness,
    Cutout,
    Elastic,
    Noise,
    Thickness,
)
from flaxdigits.config import DataConfig
from flaxdigits.data.inputs import training_inputs

DRAWS, SHAPE = 96, (12, 20)  # not square, so that axes cannot be mixed up
PLACES = np.arange(DRAWS, dtype=np.int32)
CONFIGS = {
    "rotation": Affine(rotation=25),
    "zoom": Affine(zoom=0.2),
    "shift": Affine(shift=0.1),
    "all": Affine(rotation=180, zoom=0.2, shift=0.1),
}


@functools.partial(jax.jit, static_argnames="config")
def _augment(images, places, rng, config):
    return training_inputs(
        images, places, rng, DataConfig(preprocessing="raw", augmentation=(config,)))


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
    """ImageDataGenerator's: rotation, shift and zoom matrices multiplied, about the center.

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
def sampled(request):
    """A config's name, its maps, and the angles, shifts and zooms that explain them."""
    matrices, offsets = maps_of(CONFIGS[request.param])
    angles = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])
    zooms = np.linalg.norm(matrices, axis=1)  # of the columns: zoom comes before rotation
    center = (np.array(SHAPE) - 1) / 2
    turned = offsets - center + matrices @ center  # the shift after the rotation
    cosine, sine = np.cos(angles), np.sin(angles)
    shifts = np.stack([cosine * turned[:, 0] + sine * turned[:, 1],
                       -sine * turned[:, 0] + cosine * turned[:, 1]], 1)
    return request.param, (matrices, offsets), (np.rad2deg(angles), shifts, zooms)


def test_transforms_equal_the_matrices_of_keras(sampled):
    _, (matrices, offsets), parameters = sampled
    for matrix, offset, angle, shift, zoom in zip(matrices, offsets, *parameters, strict=True):
        expected_matrix, expected_offset = keras_map(angle, shift, zoom)
        np.testing.assert_allclose(matrix, expected_matrix, atol=1e-4)
        np.testing.assert_allclose(offset, expected_offset, atol=1e-3)


def test_draws_are_uniform_within_their_ranges(sampled):
    name, _, (angles, shifts, zooms) = sampled
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
    assert np.abs(together).max() < 0.4  # the samples are independent


def test_transformed_images_equal_those_of_scipy(sampled):
    name, maps, _ = sampled
    images = np.random.default_rng(0).integers(0, 256, (DRAWS, *SHAPE)).astype(np.float32)
    found = augmented(images, CONFIGS[name])
    expected = [
        ndimage.affine_transform(image.astype(float), matrix, offset, order=1, mode="nearest")
        for image, matrix, offset in zip(images, *maps, strict=True)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.1)  # of 255
    assert np.abs(found - images).mean() > 10  # something was done


def test_randomness_depends_only_on_key_and_position():
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
        augmented(images, Affine(), np.arange(3, dtype=np.int32)), images)


def test_images_may_be_of_any_dtype_and_keep_their_shape():
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE, 1))
    found = [jax.eval_shape(functools.partial(_augment, config=CONFIGS["all"]),
                            jnp.asarray(images, dtype), jnp.arange(3), jax.random.key(0))
             for dtype in (jnp.uint8, jnp.int32, jnp.float32)]
    assert {(image.shape, image.dtype.name) for image in found} == {((3, *SHAPE, 1), "float32")}


# --- the other augmentations ---------------------------------------------------------------------

def strokes(channels: int = 1) -> np.ndarray:
    """Two strokes on blank ground, other ones in each channel: [12, 20, channels] float32."""
    image = np.zeros((*SHAPE, channels), np.float32)
    for channel in range(channels):
        image[3:9, 4 + channel:7 + channel, channel] = 200
        image[5, 8:15, channel] = 120 + channel
    return image


def changed(config: Augmentation, image: np.ndarray, draws: int = 200) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), draws)
    return np.asarray(jax.jit(jax.vmap(config.augment, (None, 0)))(image, keys))


@pytest.mark.parametrize("name", sorted(Augmentation.registered))
def test_every_augmentation_preserves_shape_and_dtype_and_treats_all_channels_the_same(name):
    config = Augmentation.find(name, "data.augmentation")()
    one, three = strokes(1), np.repeat(strokes(1), 3, axis=-1)
    found = changed(config, three, draws=4)
    assert found.shape == (4, *SHAPE, 3) and found.dtype == np.float32
    if name != "noise":  # which is another one in every channel
        np.testing.assert_allclose(found, np.repeat(changed(config, one, 4), 3, -1), atol=1e-3)


@pytest.mark.parametrize("name", sorted(Augmentation.registered))
def test_every_augmentation_stays_between_black_and_white(name):
    found = changed(Augmentation.find(name, "data.augmentation")(), strokes())
    assert found.min() >= -1e-3 and found.max() <= 255 + 1e-3


def test_shear_moves_only_rows_or_columns():
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).astype(np.float32)
    found = changed(Affine(shear=20), grid)
    middle = found[:, 4:8, 6:14]  # which no border reaches
    np.testing.assert_allclose(middle[..., 0], np.broadcast_to(
        grid[4:8, 6:14, 0], middle.shape[:-1]), atol=1e-3)
    slopes = np.diff(middle[..., 1], axis=1).mean((1, 2))
    assert np.abs(slopes).max() == pytest.approx(np.tan(np.deg2rad(20)), rel=0.05)
    assert abs(slopes.mean()) < 0.05


def test_elastic_displacement_has_the_configured_size():
    grid = np.stack(np.meshgrid(*map(np.arange, (64, 64)), indexing="ij"), -1).astype(np.float32)
    moved = changed(Elastic(strength=0.03, smoothness=0.14), grid, 50)[:, 16:48, 16:48]
    assert (moved - grid[16:48, 16:48]).std() == pytest.approx(0.03 * 64, rel=0.1)


def test_cutout_blanks_a_square_that_may_cross_the_border():
    image = np.full((40, 40, 1), 255, np.float32)
    blank = (changed(Cutout(size=0.25), image) == 0).mean((1, 2, 3))
    assert blank.max() == pytest.approx(0.0625, rel=0.01) and blank.min() < 0.05


def test_noise_has_the_configured_standard_deviation():
    gray = np.full((40, 40, 1), 128, np.float32)
    assert (changed(Noise(deviation=0.1), gray, 20) - gray).std() == pytest.approx(25.5, rel=0.05)


def test_blur_keeps_the_sum_away_from_the_border_and_lowers_the_peak():
    found = changed(Blur(radius=1.0), strokes())
    np.testing.assert_allclose(found.sum((1, 2, 3)), strokes().sum(), rtol=0.02)
    assert found.max((1, 2, 3)).min() < 190
    expected = ndimage.gaussian_filter(strokes()[..., 0], 1.0, mode="nearest", truncate=8)
    nearest = np.abs(found[..., 0] - expected).max((1, 2)).min()
    assert nearest < 10, "of 200 radii up to 1 one is almost 1"


def test_brightness_and_contrast_cover_their_ranges():
    gray = np.full((4, 4, 1), 128, np.float32)
    levels = changed(Brightness(brightness=0.2, contrast=0.0), gray)[:, 0, 0, 0]
    assert 128 - 51 <= levels.min() < 85 and 170 < levels.max() <= 128 + 51
    ramp = np.linspace(100, 150, 16, dtype=np.float32).reshape(4, 4, 1)
    spans = np.ptp(changed(Brightness(brightness=0.0, contrast=0.5), ramp), axis=(1, 2, 3))
    assert 25 <= spans.min() < 30 and 70 < spans.max() <= 75


def test_thickness_dilates_and_erodes():
    found = changed(Thickness(pixels=1), strokes())
    areas = (found > 100).sum((1, 2, 3))
    before = (strokes() > 100).sum()
    assert areas.min() < before < areas.max()
    dilated = ndimage.grey_dilation(strokes()[..., 0], (3, 3))
    assert (found[..., 0] <= dilated + 1e-3).all()
    assert np.abs(found[..., 0] - dilated).max((1, 2)).min() < 5


def test_augmentations_are_applied_in_order_with_independent_randomness():
    images = strokes()[None].repeat(3, 0).astype(np.uint8)
    both = functools.partial(
        training_inputs, images, np.arange(3, dtype=np.int32), jax.random.key(0))

    def of(*augmentations):
        return np.asarray(both(DataConfig(preprocessing="raw", augmentation=augmentations)))

    affine = Affine(rotation=30)
    assert (of(affine, Noise()) != of(Noise(), affine)).any()
    twice = of(Noise(deviation=0.1), Noise(deviation=0.1))
    assert (twice != np.clip(2 * of(Noise(deviation=0.1)) - images, 0, 255)).any()
