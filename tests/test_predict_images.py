"""A character is read the same from many kinds of image files; other files are rejected."""

import dataclasses
import importlib.util
import json
import os

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from flaxdigits.data.framing import (
    FRAMINGS,
    Framing,
    dilate,
    frame,
    measure_framing,
    recorded_framing,
    seems_several,
    stroke_width,
)
from flaxdigits.data.ink import Ink, find_ink
from flaxdigits.data.photos import LONGEST, read_photo, read_picture
from flaxdigits.errors import FlaxdigitsError

MNIST = FRAMINGS["mnist"]


def draw(size=400, ground="white", ink="black", mode="RGB", at=(0.3, 0.2), width=0.05):
    """A five, or what lies as one, with its upper left corner at a fraction of the size."""
    image = Image.new(mode, (size, size), ground)
    points = [(0.3, 0), (0, 0), (0, 0.22), (0.2, 0.2), (0.32, 0.3), (0.25, 0.45), (0, 0.47)]
    ImageDraw.Draw(image).line(
        [((at[0] + x) * size, (at[1] + y) * size) for x, y in points], fill=ink,
        width=int(width * size), joint="curve")
    return image


def in_light(image, grain=0.03):
    """A photo of it: a gradient of light, a vignette and noise."""
    pixels = np.asarray(image, np.float32) / 255
    y, x = np.mgrid[-1:1:pixels.shape[0] * 1j, -1:1:pixels.shape[1] * 1j]
    light = (0.7 + 0.25 * x - 0.1 * y) * (1 - 0.1 * (x * x + y * y))
    noise = np.random.default_rng(0).normal(0, grain, pixels.shape)
    return Image.fromarray(
        ((pixels * light[..., None] + noise) * 255).clip(0, 255).astype(np.uint8))


def alpha(image):
    strokes = Image.new("RGBA", image.size, (200, 30, 30, 0))
    strokes.putalpha(image.convert("L").point(lambda value: 255 - value))
    return strokes


def sixteen_bits(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 40 + 9000)


def turned(image):
    """Lying on its side, with the note that says so."""
    image = image.transpose(Image.Transpose.ROTATE_90)
    image.getexif()[0x0112] = 6
    return image


def ruled(image):
    pen = ImageDraw.Draw(image)
    for y in (30, 330, 370):
        pen.line([(0, y), (400, y)], fill=(150, 170, 230), width=3)
    pen.rectangle([0, 0, 25, 400], fill=(60, 40, 20))  # the table below the paper
    return image


KINDS = {
    "light on dark": ("png", lambda: draw(ground="black", ink="white")),
    "colors": ("png", lambda: draw(ground=(190, 160, 60), ink=(30, 30, 140))),
    "colors as bright as each other": (
        "png", lambda: draw(ground=(0, 150, 0), ink=(255, 21, 0))),
    "small": ("png", lambda: draw(4 * 40).resize((40, 40), Image.Resampling.BOX)),
    "large": ("png", lambda: draw(3000)),
    "elsewhere": ("png", lambda: draw(at=(0.6, 0.5))),
    "tightly cut": ("png", lambda: draw().crop((110, 70, 250, 280))),
    "photo": ("jpg", lambda: in_light(draw(ground=(230, 220, 200), ink=(40, 40, 90)))),
    "board": ("jpg", lambda: in_light(draw(ground=(30, 60, 40), ink=(230, 230, 220)))),
    "alpha": ("png", lambda: alpha(draw())),
    "alpha, light": ("webp", lambda: Image.merge(
        "RGBA", [*Image.new("RGB", (400, 400), "white").split(), alpha(draw()).split()[3]])),
    "16 bits": ("png", lambda: sixteen_bits(draw())),
    "floats": ("tif", lambda: Image.fromarray(
        np.asarray(draw().convert("L"), np.float32) * 1e-4 - 3)),
    "palette": ("gif", lambda: draw().quantize(8)),
    "one bit": ("bmp", lambda: draw().convert("1")),
    "cmyk": ("jpg", lambda: draw().convert("CMYK")),
    "turned": ("jpg", lambda: turned(draw())),
    "ruled": ("png", lambda: ruled(draw())),
}


def seen(path, framing=MNIST):
    return frame(find_ink(read_photo(path)), framing)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_seen_as_the_same(kind, tmp_path):
    suffix, make = KINDS[kind]
    image = make()
    image.save(tmp_path / f"image.{suffix}", exif=image.getexif())
    draw().save(tmp_path / "plain.png")
    plain, other = seen(tmp_path / "plain.png"), seen(tmp_path / f"image.{suffix}")
    correlation = np.corrcoef(plain.ravel(), other.ravel())[0, 1]
    assert correlation > 0.93, correlation
    turned_around = np.corrcoef(plain[::-1].ravel(), other.ravel())[0, 1]
    assert turned_around < 0.8, "else this test shows nothing"


def test_box_and_centre_are_those_of_mnist(tmp_path):
    draw(at=(0.05, 0.4)).save(tmp_path / "image.png")
    image = seen(tmp_path / "image.png")
    rows, columns = np.nonzero(image)
    assert image.shape == (28, 28) and image.dtype == np.uint8 and image.max() == 255
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    assert np.abs(np.array(ndimage.center_of_mass(image)) - 14).max() <= 0.51


def test_other_sets_have_their_own_size_polarity_and_middle(tmp_path):
    draw().save(tmp_path / "image.png")
    image = seen(tmp_path / "image.png", Framing(40, 30, 12, "box", 1, ground=220, ink=20))
    rows, columns = np.nonzero(image < 120)
    assert image.shape == (40, 30) and image.max() == 220 and image.min() == 20
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (11, 12)
    assert abs(rows.max() + rows.min() - 39) <= 2 and abs(columns.max() + columns.min() - 29) <= 2


def test_thin_strokes_become_as_thick_as_those_of_the_data_set(tmp_path):
    draw(size=1000, width=0.004).save(tmp_path / "thin.png")
    image = seen(tmp_path / "thin.png")
    assert stroke_width(image / np.float32(255)) > 1.2
    assert np.median(image[image > 60]) > 150


@pytest.mark.parametrize("radius", [1, 2, 7, 20])
def test_strokes_are_dilated_with_a_disc(radius):
    strength = (np.random.default_rng(0).random((40, 30)) ** 30).astype(np.float32)
    y, x = np.ogrid[-radius:radius + 1, -radius:radius + 1]
    disc = x * x + y * y <= radius * (radius + 0.5)
    expected = ndimage.grey_dilation(np.pad(strength, radius), footprint=disc)
    np.testing.assert_array_equal(dilate(strength, radius), expected)


def test_a_long_thin_character_fits():
    bar = np.ones((2, 300), np.float32)
    image = frame(Ink(bar, 0, 0), Framing(28, 12, 20, "mass", 0, 0, 255))
    assert image.shape == (28, 12) and image.any()


@pytest.mark.parametrize("direction", [1, -1])
def test_a_framing_is_measured_from_images(direction):
    strokes = np.zeros((40, 30, 30, 1), np.uint8)
    for place, image in enumerate(strokes):
        image[5 + place % 9:17 + place % 9, 12:15] = 200
    framing = measure_framing(strokes if direction == 1 else 255 - strokes)
    ground, ink = (0, 200) if direction == 1 else (255, 55)
    assert (framing.height, framing.width, framing.box) == (30, 30, 12)
    assert (framing.ground, framing.ink) == (ground, ink)
    assert framing.stroke == pytest.approx(3, abs=0.4)


def test_images_without_anything_have_a_framing():
    assert measure_framing(np.zeros((3, 8, 9, 1), np.uint8)).width == 9


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMINGS)
def test_the_framings_are_those_of_the_real_data(name, raw_data_dir):
    from flaxdigits.config import DataConfig
    from flaxdigits.data.dataset import DataLocations, load_dataset

    dataset = load_dataset(DataConfig(dataset=name), DataLocations(raw_data_dir, source="real"))
    measured = measure_framing(dataset.images)
    assert dataclasses.replace(measured, lowest=(), highest=()) == FRAMINGS[name]


@pytest.mark.parametrize("grain", [0, 0.02, 0.05])
def test_nothing_is_seen_on_blank_paper(grain, tmp_path):
    in_light(Image.new("RGB", (500, 300), (220, 210, 200)), grain).save(tmp_path / "blank.png")
    with pytest.raises(FlaxdigitsError, match="the image is empty"):
        find_ink(read_photo(tmp_path / "blank.png"))


@pytest.mark.parametrize(("name", "message"), [
    ("missing.png", "no such file"), ("folder", "a folder; name its files"),
    ("text.png", "of an unsupported format"),
    ("cut.png", "truncated"), ("bomb.png", "larger than"),
    ("program.eps", "of an unsupported format"),
    ("clear.png", "it is completely transparent")])
def test_a_file_that_is_not_an_image_is_reported_in_one_line(name, message, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.png").write_text("no image")
    if name == "cut.png":
        in_light(draw()).save(tmp_path / "whole.png")
        (tmp_path / name).write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    if name == "bomb.png":
        Image.new("1", (10_000, 10_000)).save(tmp_path / name)
    if name == "program.eps":
        draw().save(tmp_path / name)
    if name == "clear.png":
        Image.new("RGBA", (30, 30), (9, 9, 9, 0)).save(tmp_path / name)
    with pytest.raises(FlaxdigitsError, match=message) as caught:
        read_photo(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_large_images_are_made_smaller(tmp_path):
    draw(3000).save(tmp_path / "large.png")
    pixels = read_photo(tmp_path / "large.png")
    assert pixels.shape == (LONGEST, LONGEST, 3) and pixels.dtype == np.float32
    assert pixels.min() == 0 and pixels.max() == 1


@pytest.mark.parametrize("shape", [(100, 30), (30, 100)])
def test_a_bold_bar_is_found(shape):
    pixels = np.ones((*shape, 3), np.float32)
    bar = pixels if shape[0] > shape[1] else pixels.transpose(1, 0, 2)
    bar[10:90, 8:22] = 0
    ink = find_ink(pixels)
    assert sorted(ink.strength.shape) == [14, 80] and ink.strength.min() > 0.9


@pytest.mark.parametrize("polarity", [1, -1])
def test_a_stroke_that_fills_its_crop_is_found(polarity):
    y, x = np.mgrid[:20, :7]
    strength = np.clip(3 - np.abs(x - 5 + 4 * y / 19), 0, 1)  # a slanted one, over half of it
    pixels = np.repeat((strength if polarity == 1 else 1 - strength)[..., None], 3, axis=2)
    found = find_ink(pixels.astype(np.float32)).strength
    assert found.shape == (20, 7) and np.corrcoef(found.ravel(), strength.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("values", [
    [np.nan, np.inf, -np.inf], [3e38, -3e38, 0], [1e-45, 0, 1e-40]])
def test_pixels_of_any_float_are_read(values, tmp_path):
    pixels = np.zeros((12, 12), np.float32)
    pixels[3:9, 5], pixels[0, :3] = 1, values
    Image.fromarray(pixels).save(tmp_path / "image.tif")
    read = read_photo(tmp_path / "image.tif")
    assert np.isfinite(read).all() and read.min() >= 0 and read.max() <= 1


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(FlaxdigitsError, match="not a regular file"):
        read_photo(tmp_path / "pipe.png")


def test_heic_names_its_plugin(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(FlaxdigitsError, match="cannot be read as an image") as caught:
        read_photo(tmp_path / "photo.heic")
    assert "pillow-heif" in str(caught.value) or importlib.util.find_spec("pillow_heif")


def test_bold_strokes_on_transparent_ground_are_seen(tmp_path):
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[2:18, 2:18, 3] = 255  # most of it
    Image.fromarray(pixels).save(tmp_path / "image.png")
    read = read_photo(tmp_path / "image.png")
    assert read[0, 0].min() == 1 and read[10, 10].max() == 0


def test_the_first_of_several_pictures_is_read(tmp_path):
    frames = [draw(60), draw(60, at=(0.1, 0.1))]
    frames[0].save(tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    picture = read_picture(tmp_path / "image.gif")
    assert picture.has_more and not picture_differs(picture.image, frames[0])


def picture_differs(image, other):
    return np.abs(np.asarray(image.convert("L"), int) - np.asarray(other.convert("L"), int)).max()


def test_two_characters_seem_several():
    one = np.asarray(draw(100, at=(0.3, 0.3)), np.float32) / 255
    assert not seems_several(find_ink(one), MNIST)
    assert seems_several(find_ink(np.concatenate([one, one], axis=1)), MNIST)


@pytest.mark.parametrize("change", [
    {"layout": [0.1, 0.2]}, {"lowest": [0.0] * 4, "highest": [0.0] * 4}, {"lowest": [0.0] * 5},
    {"highest": [0.0] * 6}, {"box": 0}, {"ink": 256}])
def test_a_recorded_framing_that_is_not_possible_is_an_error(change, tmp_path):
    values = json.loads(json.dumps(dataclasses.asdict(MNIST)))
    assert recorded_framing(values, tmp_path) == MNIST
    with pytest.raises(FlaxdigitsError, match=r"not possible for an image, .* restore the"):
        recorded_framing(values | change, tmp_path)
