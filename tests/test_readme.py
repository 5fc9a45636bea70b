"""The README is short, and its picture and links are there."""

import re

import pytest
from documentation import PAGES, ROOT
from PIL import Image

README = PAGES["README.md"]


def test_it_is_short():
    assert len(README.encode()) <= 6144


def test_its_first_picture_is_that_of_the_first_run():
    commands, picture = README.index("\npython launch.py"), README.index("![")
    assert commands < picture < README.index("mnist_speedrun")


@pytest.mark.parametrize("page", PAGES)
def test_pictures_and_linked_files_exist(page):
    folder = (ROOT / page).parent
    prose = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for mark, address in re.findall(r"(!?)\[[^]]*\]\(([^)]+)\)", prose):
        if re.match("https?://", address):
            continue
        path = folder / address.partition("#")[0]
        assert path.exists(), address
        if mark:
            assert path.stat().st_size < 200_000
            with Image.open(path) as image:
                image.load()
                assert image.width >= 1000


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_pages_mention_exist(page):
    named = re.findall(r"`((?:experiments|flaxdigits|tests|docs|\.ci)/[\w./-]*)`", PAGES[page])
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_no_placeholders_are_left():
    for text in PAGES.values():
        assert not re.findall(r"\b(?:TIME|RESULTS?|DRAWN|SPEED)_\w+|TODO|FIXME", text)
