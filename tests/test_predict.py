"""--mode=predict and the function behind it: what a run's network says of image files."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from flaxdigits.api.predict import predict
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.data.framing import measure_framing
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.trained import load_network
from flaxdigits.training.run_folder import RunFolder

pytest_plugins = ["tiny_run"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A bar at three places, a file that is none, and an empty one."""
    folder = tmp_path_factory.mktemp("images")
    for name, top in (("b[1]", 10), ("a", 40), ("c", 70)):
        pixels = np.full((100, 100), 230, np.uint8)
        pixels[top:top + 12, 20:80] = 30
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "d.png").write_text("no image")
    Image.new("L", (20, 20)).save(folder / "e.png")
    return folder


def test_predictions_are_the_softmax_of_the_network_for_its_input(finished, images, tiny_data):
    network = load_network(RunFolder(finished))
    assert network.step == 6 and network.framing == measure_framing(tiny_data.images)
    files = [images / name for name in ("c.png", "d.png", "a.png")]
    readings = predict(finished, files).predictions
    assert [reading.file for reading in readings] == [str(path) for path in files]
    assert readings[1].guesses == () and readings[1].error.startswith(f"{images / 'd.png'}: ")
    for reading in (readings[0], readings[2]):
        expected = softmax(np.asarray(network.logits(reading.network_input[None, ..., None]))[0])
        order = np.argsort(-expected)[:3]
        assert [guess.class_name for guess in reading.guesses] == [str(x) for x in order]
        np.testing.assert_allclose(
            [guess.confidence for guess in reading.guesses], expected[order], rtol=1e-4)
    assert readings[2].box == pytest.approx((0.2, 0.4, 0.8, 0.52), abs=0.015)


def test_the_checkpoint_is_the_one_that_was_named(finished, images):
    first, last = (predict(finished, [images / "a.png"], checkpoint).predictions[0].guesses
                   for checkpoint in (2, "last"))
    assert first != last
    assert predict(finished, [images / "a.png"], 6).predictions[0].guesses == last


def test_the_others_are_done_when_one_cannot_be_read(finished, images, launch_here):
    done = launch_here("--mode=predict", f"--workdir={finished}", f"--images={images}/*.png",
                       "--format=json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert [row["file"] for row in found] == [
        f"{images}/{name}.png" for name in ("a", "b[1]", "c", "d", "e")]
    assert [len(row.get("guesses", ())) for row in found] == [3, 3, 3, 0, 0]
    assert sum(guess["confidence"] for guess in found[0]["guesses"]) <= 1.001
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and "d.png" in lines[0] and "e.png: the image is empty" in lines[1]


def test_a_table_and_a_figure(finished_copy, images, launch_here):
    done = launch_here("--mode=predict", f"--workdir={finished_copy}",
                       f"--images={images}/b[1].png", f"--images={images}/[ac].png",
                       f"--images={images}/a.png", "--figure")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    rows = [line for line in done.stdout.splitlines() if ".png " in line and "%" in line]
    assert [row.split("/")[-1].split(".")[0] for row in rows] == ["b[1]", "a", "c"]
    assert all(row.count("%") == 3 for row in rows)
    figure = finished_copy / "figures" / "predictions.png"
    assert f"images and network inputs: {figure}" in done.stdout
    assert Image.open(figure).width > 600


def test_a_pattern_without_a_match_is_an_error(finished, images, launch_here):
    done = launch_here("--mode=predict", f"--workdir={finished}", f"--images={images}/a.png",
                       f"--images={images}/none*.png")
    assert done.returncode == 1 and "none*.png: no such file" in done.stderr
    assert "a.png" in done.stdout


@pytest.mark.parametrize(("flags", "message"), [
    ([], "predict needs images"),
    (["--images=none/*.png"], "no file matches none/*.png"),
    (["--images=launch.py", "--set=seed=1"], "leave out --set"),
    (["--images=launch.py", "--checkpoint=all"], "checkpoint=all is supported only by evaluate"),
    (["--images=launch.py", "--checkpoint=5"], "expected last, best or one of the steps 2, 4, 6"),
    (["--mode=eval", "--images=launch.py"], "--images is only for --mode=predict")])
def test_bad_input_is_reported_in_one_line(flags, message, finished, launch_here):
    done = launch_here("--mode=predict", f"--workdir={finished}", *flags)
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_an_unwritable_figure_is_an_error_before_anything_is_computed(finished, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FlaxdigitsError) as message:
        predict(finished, images / "a.png", figure=tmp_path / "file" / "seen.png")
    assert "seen.png: cannot write: " in str(message.value)
    assert "choose another path" in str(message.value) and "workdir" not in str(message.value)


def test_the_files_of_the_training_set_are_read_as_they_were_trained_on(tmp_path, launch_here):
    rng = np.random.default_rng(0)
    for label, (height, width) in enumerate([(30, 6), (30, 12), (14, 30)]):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(200, 256, (height, width)).astype(np.uint8)
            pixels[2:-2, 2:4] = 0
            Image.fromarray(pixels).save(tmp_path / "data" / str(label) / f"{number}.png")
    done = launch_here("--experiment=dense_cnn", f"--workdir={tmp_path / 'run'}",
                       "--set=train.steps=1", "--set=data.dataset=image_folder",
                       f"--set=data.folder={tmp_path / 'data'}", "--set=data.image_size=20",
                       "--set=data.split=random", "--set=model.filters=2", "--set=model.dense=4")
    assert done.returncode == 0, done.stderr
    config = RunFolder(tmp_path / "run").config()
    images = load_dataset(config.data, DataLocations()).images[..., 0]
    files = [tmp_path / "data" / str(label) / f"{number}.png"
             for number in range(6) for label in range(3)]
    readings = predict(tmp_path / "run", files).predictions
    np.testing.assert_array_equal([reading.network_input for reading in readings], images)


def test_several_characters_are_noted(finished, tmp_path, launch_here):
    pixels = np.full((60, 120), 230, np.uint8)
    pixels[10:50, 20:26] = pixels[10:50, 90:96] = 20
    Image.fromarray(pixels).save(tmp_path / "two.png")
    done = launch_here("--mode=predict", f"--workdir={finished}", f"--images={tmp_path}/two.png")
    assert done.returncode == 0 and done.stderr == (
        f"note: {tmp_path}/two.png: seems to contain several characters, which were read as one; "
        "crop each character to a separate file\n")
