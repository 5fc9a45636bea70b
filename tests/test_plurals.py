"""Numbers with a noun in the singular or plural."""

import pytest

from flaxdigits.plurals import counted, listed


@pytest.mark.parametrize(("number", "text"), [
    (1, "1 epoch"), (1.0, "1 epoch"), (0, "0 epochs"), (2, "2 epochs"), (12000, "12,000 epochs"),
    (1.0666667, "1.07 epochs"), (0.0106667, "0.0107 epochs"), (12.5, "12.5 epochs"),
    (0.9999, "1 epoch"), (100.0, "100 epochs")])
def test_a_noun_is_singular_only_after_one(number, text):
    assert counted(number, "epoch") == text


def test_a_list_of_several_has_a_plural():
    assert listed("seed", [3]) == "seed 3" and listed("seed", [0, 1]) == "seeds 0, 1"
