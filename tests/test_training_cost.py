"""What a train step of each recipe costs, held to committed figures: nothing is timed.

After a change that is meant: `python tests/test_training_cost.py` writes the figures anew.
"""

import json
import re
from pathlib import Path

import jaxlib
import pytest
from traced_recipe import traced_steps

from flaxdigits.experiments import list_experiments, load_experiment
from flaxdigits.models import build_model
from flaxdigits.reports.layers import Layer, list_layers

FIGURES = Path(__file__).parent / "costs.json"


def layers_of(name: str) -> list[Layer]:
    config = load_experiment(name)
    is_chinese = config.data.dataset == "chinese_mnist"
    image, classes = ((64, 64, 1), 15) if is_chinese else ((28, 28, 1), 10)
    return list_layers(build_model(config.model, classes), image)


def costs(name: str, is_compiled: bool) -> dict[str, int]:
    """An image's operations; a step's products and transposes, and what XLA copies in all."""
    traced = traced_steps(name, "jit")
    lowered = traced.lower(lowering_platforms=("cpu",))
    text = lowered.as_text()
    found = {"products": text.count("stablehlo.dot_general"),
             "transposes": text.count("stablehlo.transpose"),
             "flops": sum(layer.flops for layer in layers_of(name))}
    if is_compiled:
        compiled = lowered.compile().as_text()
        found["copies"] = len(re.findall(r" (?:copy|transpose)\(", compiled))
    return found


def committed() -> dict:
    return json.loads(FIGURES.read_text())


def test_every_experiment_is_here():
    assert set(committed()["experiments"]) == set(list_experiments())


@pytest.mark.parametrize("name", list_experiments())
def test_a_step_costs_no_more_than_it_did(name):
    is_recorded = committed()["jaxlib"] == jaxlib.__version__
    expected = dict(committed()["experiments"][name])
    if not is_recorded:
        del expected["copies"]
    assert costs(name, is_recorded) == expected


if __name__ == "__main__":
    FIGURES.write_text(json.dumps(
        {"jaxlib": jaxlib.__version__,
         "experiments": {name: costs(name, True) for name in list_experiments()}}, indent=2) + "\n")
