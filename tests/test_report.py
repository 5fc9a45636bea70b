"""The report of a run: what is written when, from what, and how a browser shows it."""

import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_reports_figures import IMAGES, report, result

from flaxdigits.reports.finished_run import write_report_or_warn
from flaxdigits.reports.layers import Layer
from flaxdigits.training.predictions import Predictions, predictions_file

pytest_plugins = ["tiny_run"]

FIGURES = {"confusion.png", "error.png", "filters.png", "loss.png", "mistakes.png",
           "samples.png"}


def read(workdir):
    return json.loads((workdir / "result.json").read_text())


class Page(html.parser.HTMLParser):
    """The words, tags and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.addresses = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs
                           if name in ("src", "srcset", "href", "action", "data", "poster")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.quick
def test_a_run_ends_with_a_report(finished):
    figures = {path.name for path in (finished / "figures").iterdir()}
    assert figures == FIGURES
    found, page = read(finished), Page((finished / "report.html").read_text())
    for text in ("tiny", f"{found['test_accuracy']:.2%}", f"{found['test_errors']:,} errors in 70",
                 "The test split, 70 images", "Conv_0", "28 × 28 × 2", "optimizer.learning_rate",
                 "data.fingerprint", "versions.jax"):
        assert text in page.text, text
    assert json.loads((finished / "config.json").read_text())["command"] in page.text
    assert page.tags.count("figure") == 32 + min(32, found["test_errors"])


def test_report_page_is_self_contained(finished):
    text = (finished / "report.html").read_text()
    page = Page(text)
    assert len(page.addresses) > 32
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import|\son\w+=", re.sub(r"base64,[^\"]+", "", text))


def test_predictions_are_kept_as_plain_arrays(finished, tiny_data):
    found = read(finished)
    with np.load(finished / "predictions.npz", allow_pickle=False) as saved:
        assert int(saved["step"]) == 6
        assert saved["class_names"].tolist() == [str(digit) for digit in range(10)]
        for split in ("validation", "test"):
            index, labels, logits = (
                saved[f"{split}_{name}"] for name in ("index", "labels", "logits"))
            np.testing.assert_array_equal(tiny_data.labels[index], labels)
            assert logits.shape == (found[f"{split}_examples"], 10)
            assert (logits.argmax(1) != labels).sum() == found[f"{split}_errors"]
        assert not any(name.startswith("train") or name.endswith("writers") for name in saved)


def test_writers_are_kept_where_they_are_known(tiny_data):
    dataset = dataclasses.replace(tiny_data, writers=np.arange(270, dtype=np.int32) // 7)
    index = np.array([250, 3], np.int32)
    one = Predictions(index, dataset.labels[index], np.eye(10, dtype=np.float32)[:2])
    content = predictions_file({"test": one}, 4, dataset)
    with np.load(io.BytesIO(content), allow_pickle=False) as saved:
        assert saved["test_writers"].tolist() == [35, 0]


def test_synthetic_data_is_noted():
    for source in ("drawn", "real"):
        page = Page(report(result=result(data_source=source)).files()["report.html"].decode())
        assert ("Synthetic data." in page.text) == (source == "drawn")


def test_without_a_test_split_it_is_about_validation(train_tiny, tmp_path):
    train_tiny(tmp_path, "data.split=random", "data.limit=20", "train.steps=3",
               write_report=write_report_or_warn)
    page = Page((tmp_path / "report.html").read_text())
    assert "The validation split, 54 images" in page.text
    assert "test accuracy" not in page.text


def test_it_is_about_the_reported_checkpoint(train_tiny, tmp_path):
    train_tiny(tmp_path, "checkpoint.select=best", "optimizer.learning_rate=3")
    found = read(tmp_path)
    assert found["checkpoint_step"] < found["steps"], "else this test shows nothing"
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as saved:
        assert int(saved["step"]) == found["checkpoint_step"]
        wrong = saved["test_logits"].argmax(1) != saved["test_labels"]
    assert wrong.sum() == found["test_errors"]


def test_a_folder_of_images_has_a_report(launch_here, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("甲", "<b>", "$x$"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 255, (20, 14), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    completed = launch_here(
        "--experiment=dense_cnn", "--set=data.dataset=image_folder", "--set=data.split=random",
        f"--set=data.folder={tmp_path / 'images'}", f"--workdir={tmp_path / 'run'}",
        "--set=train.steps=2", "--set=model.filters=2", "--set=model.dense=4")
    assert completed.returncode == 0 and completed.stderr == "", completed.stderr
    assert str(tmp_path / "run" / "report.html") in completed.stdout
    text = (tmp_path / "run" / "report.html").read_text()
    assert "<b>&lt;" not in text and "<b></td>" not in text and "甲" in text
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == FIGURES


def test_a_report_that_fails_leaves_the_result(finished_copy, launch_here, caplog):
    """As a full disk would: here a file is where the folder of the figures should be."""
    before = read(finished_copy)
    shutil.rmtree(finished_copy / "figures")
    for name in ("result.json", "report.html"):
        (finished_copy / name).unlink()
    (finished_copy / "figures").write_text("in the way")
    completed = launch_here(f"--workdir={finished_copy}")
    assert completed.returncode == 0
    last = completed.stdout.splitlines()[-1]
    assert last == f"complete at step 6: {finished_copy / 'result.json'}"
    assert read(finished_copy)["test_errors"] == before["test_errors"]
    *_, note = (record.message for record in caplog.records
                if record.name.startswith("flaxdigits"))  # Orbax may call the disk slow
    assert note.startswith("the report was not written: ")
    assert "use mode=report with workdir=" in note
    refused = launch_here("--mode=report", f"--workdir={finished_copy}")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert f"{finished_copy / 'figures'}" in refused.stderr


def test_an_old_run_gets_its_report(finished_copy, finished, launch_here):
    shutil.rmtree(finished_copy / "figures")
    for name in ("report.html", "predictions.npz"):
        (finished_copy / name).unlink()
    completed = launch_here("--mode=report", f"--workdir={finished_copy}")
    assert completed.returncode == 0 and completed.stderr == "", completed.stderr
    assert str(finished_copy / "report.html") in completed.stdout
    for name in FIGURES:
        pictures = [np.asarray(Image.open(folder / "figures" / name), np.float32)
                    for folder in (finished, finished_copy)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 1, name
    with np.load(finished / "predictions.npz") as old, np.load(
            finished_copy / "predictions.npz") as new:
        assert old.keys() == new.keys()
        np.testing.assert_allclose(old["test_logits"], new["test_logits"], rtol=1e-5, atol=1e-5)


def test_a_report_is_refused(finished_copy, launch_here):
    def error_message(*arguments):
        completed = launch_here("--mode=report", f"--workdir={finished_copy}", *arguments)
        assert completed.returncode == 2 and completed.stdout == ""
        assert completed.stderr.count("\n") == 1
        return completed.stderr

    assert "leave out --set" in error_message("--set=seed=1")
    shutil.rmtree(finished_copy / "checkpoints" / "6")
    assert "the checkpoint of step 6" in error_message()
    (finished_copy / "result.json").unlink()
    assert ("the run is unfinished, at step 4, and only a finished run has a report"
            in error_message())
    (finished_copy / "config.json").unlink()
    assert "not a run folder" in error_message()


def test_every_value_is_escaped_in_the_html_report():
    nasty = "<script>alert('x')</script>\"&"
    files = report(
        class_names=(nasty, "b", "c"), result=result(experiment=nasty, device=nasty),
        config={"data": {"folder": nasty}, nasty: [nasty]}, about={nasty: nasty},
        layers=[Layer((nasty,), nasty, (3,), 39, 72)]).files()
    page = Page(files["report.html"].decode())
    assert "script" not in page.tags and "b" in page.tags
    assert page.text.count(nasty) > 10


# From here on: in a browser.

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")
COLORS = {"light": (0xf7, 0xf7, 0xf8), "dark": (0x11, 0x11, 0x13)}  # of the page
# A frame can be as narrow as a telephone; a window cannot.
PROBE = """<title>none</title>
<iframe width="{width}" height="5000" frameborder="0"></iframe><script>
const frame = document.querySelector("iframe")
frame.onload = () => {{
  const page = frame.contentDocument
  document.title = JSON.stringify({{
    wide: frame.contentWindow.innerWidth, needed: page.documentElement.scrollWidth,
    broken: [...page.images].filter(image => !image.naturalWidth).length,
    shown: page.images.length}})
}}
frame.srcdoc = {page}</script>"""


@pytest.fixture(scope="session")
def browse(tmp_path_factory):
    """Opens a page in Chromium with further flags; gives what it prints."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium to look at the page with")

    def run(page, width, *flags):
        profile = tmp_path_factory.mktemp("profile")
        completed = subprocess.run(
            [chromium, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},5000", *flags,
             page.as_uri()], capture_output=True, text=True, timeout=120, check=False)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run


@pytest.fixture(scope="module")
def chinese_page(tmp_path_factory):
    """A page with all there is: a validation split, errors, filters, Chinese classes."""
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 15, 300), rng.normal(size=(300, 15))
    logits[np.arange(300), labels] += 3
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(report(
        class_names=tuple("零一二三四五六七八九十百千万亿"), images=np.tile(IMAGES, (50, 5, 6, 1)),
        index=np.arange(300), labels=labels, logits=logits,
        filters=rng.normal(size=(32, 3, 3)).astype(np.float32),
        config={"data": {"folder": "/a/path/without/any/place/to/break/" + 120 * "x"}},
    ).files()["report.html"])
    return path


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_fits_its_window_and_its_pictures_load(width, browse, chinese_page, tmp_path):
    text = chinese_page.read_text().replace("<details>", "<details open>")
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width, page=json.dumps(text).replace("</", "<\\/")))
    found = re.search("<title>(.*)</title>", browse(probe, 1300, "--dump-dom"))
    actual = json.loads(found.group(1))
    assert actual["wide"] == width and actual["needed"] <= width, actual
    assert actual["broken"] == 0 and actual["shown"] > 64, actual


@pytest.mark.parametrize("theme", COLORS)
def test_the_page_is_light_or_dark_and_shows_its_pictures(theme, browse, chinese_page, tmp_path):
    shot = tmp_path / "shot.png"
    browse(chinese_page, 1200, f"--screenshot={shot}",
           f"--blink-settings=preferredColorScheme={list(COLORS)[::-1].index(theme)}")
    pixels = np.asarray(Image.open(shot).convert("RGB"), int)
    assert (pixels[:, :20] == COLORS[theme]).all(), "the left border has the page's color"
    card = pixels[430:800, 100:1100].reshape(-1, 3)  # the curves
    paper = {"light": 255, "dark": 30}[theme]
    assert (np.abs(card - paper).max(1) < 12).mean() > 0.8
    assert card.std() > 10
    colorful = np.ptp(pixels, axis=2) > 50
    assert colorful.sum() > 50_000, "without the confusion matrix and filters it is mostly gray"
