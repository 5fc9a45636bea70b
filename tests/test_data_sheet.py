"""--mode=data: the very images that training sees, the counts, the sheet."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny_run import train

from flaxdigits.data.splits import split_indices
from flaxdigits.models import Model, register
from flaxdigits.overrides import apply_overrides
from flaxdigits.reports.data import class_table, writer_lines
from flaxdigits.training.first_inputs import first_inputs

pytest_plugins = ["tiny_run"]


@pytest.fixture
def seen(monkeypatch):
    """The batches that reach the network `spy` in training."""
    batches = []

    class Spy(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, images, training=None):
            if training is not None:
                jax.debug.callback(lambda images: batches.append(np.asarray(images)), images,
                                   ordered=True)
            return nn.Dense(self.num_classes)(images.reshape(len(images), -1))

    monkeypatch.setattr(Model, "registered", dict(Model.registered))
    register("spy")(Spy)
    return batches


@pytest.mark.parametrize("changes", [
    [], ["data.preprocessing=column_norm"],
    ["data.augmentation.rotation=20", "data.augmentation.zoom=0.2", "seed=3"]], ids=str)
def test_the_images_are_those_that_training_sees(
    changes, seen, tiny_config, tiny_data, tmp_path
):
    config = apply_overrides(tiny_config, [
        "model.name=spy", "train.batch_size=7", "train.steps=3", *changes])
    train(config, tiny_data, tmp_path)
    jax.effects_barrier()
    index = split_indices(config.data, tiny_data)["train"]
    images, labels = first_inputs(config, tiny_data, index, 17)
    assert images.shape == (17, 28, 28, 1) and labels.shape == (17,)
    np.testing.assert_allclose(images, np.concatenate(seen)[:17], atol=1e-6)
    assert len(first_inputs(config, tiny_data, index, 10_000)[0]) == len(index)


def printed(thing):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def test_the_table_counts_every_class():
    labels = np.array([0, 0, 0, 1, 0, 1])
    table = printed(class_table(
        ("[/b]", "猫", "none"), labels, {"train": np.arange(4), "test": np.array([4, 5])}))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines()]
    assert ["[/b]", "3   75.0%", "1   50.0%"] in rows
    assert ["猫", "1   25.0%", "1   50.0%"] in rows
    assert ["none", "0    0.0%", "0    0.0%"] in rows
    assert ["all", "4  100.0%", "2  100.0%"] in rows


def test_writers_are_counted_and_those_on_both_sides_reported():
    writers = np.array([1, 1, 1, 2, 3, 2])
    lines = list(writer_lines(writers, {"train": np.arange(4), "test": np.array([4, 5])}))
    assert lines == ["train: 2 writers with 1 to 3 images (median 2)",
                     "test: 2 writers with 1 image each",
                     "writers in both train and test: 1"]
    assert list(writer_lines(writers, {"a": np.array([0]), "b": np.array([4])}))[-1].endswith(
        "none")


def test_data_mode_shows_an_experiments_data(launch_here, idx_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--experiment=mse_cnn", "--set=data.dataset=idx_files", "--set=data.split=holdout",
             f"--set=data.folder={idx_folder}", "--set=data.limit=30"]
    completed = launch_here("--mode=data", *flags)
    assert completed.returncode == 0 and completed.stderr == "", completed.stderr
    assert (f"{idx_folder.name} (idx_files), split holdout: 28x28 images, 10 classes"
            in completed.stdout)
    for text in ("all", "30  100.0%", "70  100.0%"):
        assert text in completed.stdout
    assert "writers" not in completed.stdout
    assert "preview: runs/mse_cnn/figures/data.png" in completed.stdout
    sheet = Image.open(tmp_path / "runs" / "mse_cnn" / "figures" / "data.png")
    assert sheet.width > 1000 and sheet.height > 1000
    trained = launch_here(*flags, "--set=train.steps=1", "--set=model.filters=2,2")
    assert trained.returncode == 0, trained.stderr  # the sheet is in nobody's way
    again = launch_here("--mode=data", "--workdir=runs/mse_cnn")
    assert again.returncode == 0 and "30  100.0%" in again.stdout


@pytest.mark.slow
def test_data_mode_shows_writers(launch, tmp_path):
    completed = launch("--mode=data", "--experiment=chinese_cnn", "--data=drawn",
                       "--set=data.split=writers", f"--workdir={tmp_path}")
    assert completed.returncode == 0 and completed.stderr == "", completed.stderr
    assert completed.stdout.startswith("SYNTHETIC DATA") and "亿" in completed.stdout
    assert "train: 80 writers with 150 images each" in completed.stdout
    assert "writers in both train and test: none" in completed.stdout
